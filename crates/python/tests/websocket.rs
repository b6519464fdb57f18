//! Each WebSocket of an ASGI application through a turtle, against a real client on the other end of a pipe.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of test functions")]

mod common;

use bytes::Bytes;
use common::{App, PATIENCE, whole};
use hawksbill_core::config::{Duration, Size};
use hawksbill_core::{Body, Draining, Error as CoreError, Kind, Upgrade, Upgraded};
use hawksbill_python::{Options, WebSockets};
use hawksbill_websocket::client::ClientHandshake;
use hawksbill_websocket::{CloseFrame, Config, DeflateConfig, Error, Message, Role, WebSocket};
use http::{Request, Response};
use tokio::io::DuplexStream;

type Client = WebSocket<DuplexStream>;

/// Asks for a WebSocket; the client is there if the answer is 101.
async fn connect(
    app: &App,
    handshake: ClientHandshake,
    draining: Draining,
) -> Result<(Response<Body>, Option<Client>), CoreError> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let upgrade = Upgrade::new(async move { Ok(Upgraded::new(near, Bytes::new())) });
    let mut request = Request::get("/live/1?q=2").extension(upgrade).extension(draining);
    request.headers_mut().unwrap().extend(handshake.headers());
    let response = app.ask(request, Body::empty()).await?;
    let client = (response.status() == 101).then(|| {
        let agreed = handshake.verify(&response).unwrap();
        WebSocket::new(far, Role::Client, &Config { deflate: agreed.deflate, ..Config::default() })
    });
    Ok((response, client))
}

async fn open(app: &App) -> Client {
    connect(app, ClientHandshake::new().unwrap(), Draining::never()).await.unwrap().1.unwrap()
}

async fn receive(client: &mut Client) -> Result<Message, Error> {
    tokio::time::timeout(PATIENCE, client.recv()).await.expect("a message in time")
}

const ECHO: &str = "
log = []
async def app(scope, receive, send):
    assert scope['type'] == 'websocket', scope['type']
    log.append(await receive())
    log.append({'scope': (scope['path'], scope['query_string'], scope['scheme'], scope['subprotocols'])})
    await send({'type': 'websocket.accept', 'subprotocol': next(iter(scope['subprotocols']), None),
                'headers': [(b'set-cookie', b'a=1'), (b'set-cookie', b'b=2')]})
    while True:
        message = await receive()
        log.append(message)
        if message['type'] == 'websocket.disconnect':
            return
        if message.get('text') == 'bye':
            await send({'type': 'websocket.close', 'code': 4001, 'reason': 'as you wish'})
        elif message.get('text') == 'fail':
            raise ValueError('as you wish')
        elif message.get('text') == 'return':
            return
        else:
            message['type'] = 'websocket.send'
            await send(message)
";

#[tokio::test]
async fn messages_go_both_ways() {
    let app = App::start(ECHO).await;
    let handshake = ClientHandshake::new().unwrap().subprotocol("chat").subprotocol("other");
    let (response, client) = connect(&app, handshake, Draining::never()).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    let mut client = client.unwrap();
    for message in [Message::text("señal"), Message::binary(vec![1; 300_000]), Message::text("")] {
        // Receiving writes what is fed.
        client.feed(message.clone()).await.unwrap();
        assert_eq!(receive(&mut client).await.unwrap(), message);
    }
    client.send(Message::close(3000, "done")).await.unwrap();
    assert!(matches!(receive(&mut client).await, Ok(Message::Close(_))));
    app.until("len(log) == 6").await;
    assert_eq!(
        app.eval("log[:2]"),
        "[{'type': 'websocket.connect'}, {'scope': ('/live/1', b'q=2', 'ws', ['chat', 'other'])}]"
    );
    assert_eq!(app.eval("log[-1]"), "{'type': 'websocket.disconnect', 'code': 3000, 'reason': 'done'}");
    app.stop().await;
}

#[tokio::test]
async fn compression_is_agreed_on() {
    let app = App::start(ECHO).await;
    let handshake = ClientHandshake::new().unwrap().deflate(DeflateConfig::default());
    let (response, client) = connect(&app, handshake, Draining::never()).await.unwrap();
    assert!(
        response.headers()["sec-websocket-extensions"].to_str().unwrap().starts_with("permessage-deflate")
    );
    let mut client = client.unwrap();
    let message = Message::text("turtle ".repeat(1000));
    client.send(message.clone()).await.unwrap();
    assert_eq!(receive(&mut client).await.unwrap(), message);
    app.stop().await;
}

#[tokio::test]
async fn every_end_has_its_code() {
    let app = App::start(ECHO).await;
    let ended = |code: u16, reason: &str| Message::Close(Some(CloseFrame::new(code, reason)));
    for (text, last) in
        [("bye", ended(4001, "as you wish")), ("fail", ended(1011, "")), ("return", ended(1000, ""))]
    {
        let mut client = open(&app).await;
        client.send(Message::text(text)).await.unwrap();
        assert_eq!(receive(&mut client).await.unwrap(), last, "{text}");
    }
    assert_eq!(app.eval("4001 in [entry.get('code') for entry in log]"), "True");

    // A close without a code, no close at all, and a frame against the protocol.
    let mut client = open(&app).await;
    client.send(Message::Close(None)).await.unwrap();
    app.until("log[-1] == {'type': 'websocket.disconnect', 'code': 1005, 'reason': ''}").await;
    let client = open(&app).await;
    drop(client);
    app.until("log[-1] == {'type': 'websocket.disconnect', 'code': 1006, 'reason': ''}").await;
    let client = open(&app).await;
    let mut raw = client.into_inner();
    tokio::io::AsyncWriteExt::write_all(&mut raw, &[0xC1, 0x80, 0, 0, 0, 0]).await.unwrap();
    app.until("log[-1].get('code') == 1002").await;
    app.stop().await;
}

#[tokio::test]
async fn a_ping_is_answered_though_the_application_sleeps() {
    let app = App::start(
        "import asyncio
async def app(scope, receive, send):
    assert scope['type'] == 'websocket'
    await send({'type': 'websocket.accept'})
    await asyncio.sleep(60)
",
    )
    .await;
    let mut client = open(&app).await;
    client.send(Message::Ping(Bytes::from_static(b"hi"))).await.unwrap();
    assert_eq!(receive(&mut client).await.unwrap(), Message::Pong(Bytes::from_static(b"hi")));
    app.stop().await;
}

#[tokio::test]
async fn handshakes_are_refused_in_every_way() {
    for (body, status) in [
        ("await send({'type': 'websocket.close'})", 403),
        // A 403 has neither code nor reason, so none can be wrong.
        ("await send({'type': 'websocket.close', 'code': 5, 'reason': [1]})", 403),
        (
            "await send({'type': 'websocket.http.response.start', 'status': 401, 'headers': [(b'x-a', b'b')]})
    await send({'type': 'websocket.http.response.body', 'body': b'who ', 'more_body': True})
    await send({'type': 'websocket.http.response.body', 'body': b'are you'})",
            401,
        ),
    ] {
        let source = format!(
            "log = []
async def app(scope, receive, send):
    assert scope['type'] == 'websocket'
    assert (await receive())['type'] == 'websocket.connect'
    {body}
    log.append(await receive())
"
        );
        let app = App::start(&source).await;
        let handshake = ClientHandshake::new().unwrap();
        let (response, client) = connect(&app, handshake, Draining::never()).await.unwrap();
        assert_eq!((response.status().as_u16(), client.is_some()), (status, false));
        let expected = if status == 401 { "who are you" } else { "" };
        assert_eq!(whole(response).await.unwrap(), expected);
        app.until("log == [{'type': 'websocket.disconnect', 'code': 1006, 'reason': ''}]").await;
        app.stop().await;
    }
    for body in [
        "raise ValueError('no')",
        "return",
        "await send({'type': 'websocket.send', 'text': 'too early'})",
        "await send({'type': 'websocket.accept', 'subprotocol': 'never offered'})",
        "await send({'type': 'websocket.accept', 'headers': [(b'sec-websocket-accept', b'x')]})",
    ] {
        let source = format!(
            "async def app(scope, receive, send):\n    assert scope['type'] == 'websocket'\n    {body}\n"
        );
        let app = App::start(&source).await;
        let refused = connect(&app, ClientHandshake::new().unwrap(), Draining::never()).await;
        assert_eq!(refused.err().expect(body).kind(), Kind::Internal, "{body}");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_never_reaches_the_application() {
    let app = App::start(ECHO).await;
    let (near, _far) = tokio::io::duplex(64);
    let upgrade = Upgrade::new(async move { Ok(Upgraded::new(near, Bytes::new())) });
    let request = Request::get("/")
        .extension(upgrade)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "8")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let error = app.ask(request, Body::empty()).await.unwrap_err();
    assert_eq!(
        (error.kind(), &error.into_response().headers()["sec-websocket-version"]),
        (Kind::UpgradeRequired, &"13".parse().unwrap())
    );
    assert_eq!(app.eval("log"), "[]");
    app.stop().await;
}

#[tokio::test]
async fn neither_side_gives_more_than_the_other_takes() {
    let app = App::start(
        "import asyncio
sent = 0
error = None
go_on = False
received = 0
async def app(scope, receive, send):
    global sent, error, received
    assert scope['type'] == 'websocket'
    await send({'type': 'websocket.accept'})
    try:
        while not go_on:
            await send({'type': 'websocket.send', 'bytes': bytes(65536)})
            sent += 1
    except OSError as e:
        error = e
",
    )
    .await;
    let mut client = open(&app).await;
    app.until("sent >= 3").await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let before: usize = app.eval("sent").parse().unwrap();
    assert!(before < 12, "{before}");
    for _ in 0..before + 5 {
        receive(&mut client).await.unwrap();
    }
    assert!(app.eval("sent").parse::<usize>().unwrap() > before);
    drop(client);
    app.until("error is not None").await;
    app.stop().await;
}

#[tokio::test]
async fn messages_that_nobody_takes_stay_with_the_client() {
    let app = App::start(
        "import asyncio
go_on = False
received = 0
async def app(scope, receive, send):
    global received
    assert scope['type'] == 'websocket'
    await receive()
    await send({'type': 'websocket.accept'})
    while not go_on:
        await asyncio.sleep(0.01)
    while (await receive())['type'] == 'websocket.receive':
        received += 1
",
    )
    .await;
    let mut client = open(&app).await;
    let mut sent = 0;
    while sent < 100 {
        let send = client.send(Message::binary(vec![0; 65536]));
        if tokio::time::timeout(std::time::Duration::from_millis(200), send).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 12, "{sent}");
    app.eval("globals().update(go_on=True)");
    client.flush().await.unwrap();
    for _ in 0..50 {
        client.send(Message::binary(vec![0; 65536])).await.unwrap();
    }
    client.send(Message::Close(None)).await.unwrap();
    app.until(&format!("received >= {}", sent + 50)).await;
    app.stop().await;
}

#[tokio::test]
async fn a_drain_says_that_the_service_restarts() {
    let app = App::start(ECHO).await;
    let (begin, begins) = tokio::sync::oneshot::channel::<()>();
    let draining = Draining::new(async {
        begins.await.ok();
    });
    let client = connect(&app, ClientHandshake::new().unwrap(), draining).await.unwrap().1;
    let mut client = client.unwrap();
    begin.send(()).unwrap();
    let Message::Close(Some(frame)) = receive(&mut client).await.unwrap() else { panic!("no close frame") };
    assert_eq!(frame.code.0, 1012);
    app.until("log[-1].get('code') == 1012").await;
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_is_noticed() {
    let app = App::start(
        "log = []
async def app(scope, receive, send):
    assert scope['type'] == 'websocket'
    log.append(await receive())
    log.append(await receive())
    try:
        await send({'type': 'websocket.accept'})
    except OSError:
        log.append('gone')
",
    )
    .await;
    let connecting = connect(&app, ClientHandshake::new().unwrap(), Draining::never());
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(100), connecting).await;
    assert!(given_up.is_err());
    app.until("len(log) == 3").await;
    assert_eq!(app.eval("log[1:]"), "[{'type': 'websocket.disconnect', 'code': 1006, 'reason': ''}, 'gone']");
    app.stop().await;
}

#[tokio::test]
async fn the_settings_hold() {
    let websocket = WebSockets { max_message: Size::new(1000), compress: false, ..WebSockets::default() };
    let app = App::with(ECHO, Options { websocket, ..Options::default() }).await.unwrap();
    let handshake = ClientHandshake::new().unwrap().deflate(DeflateConfig::default());
    let (response, client) = connect(&app, handshake, Draining::never()).await.unwrap();
    assert!(!response.headers().contains_key("sec-websocket-extensions"));
    let mut client = client.unwrap();
    let fits = Message::binary(vec![1; 1000]);
    client.send(fits.clone()).await.unwrap();
    assert_eq!(receive(&mut client).await.unwrap(), fits);
    client.send(Message::binary(vec![1; 1001])).await.unwrap();
    let Message::Close(Some(frame)) = receive(&mut client).await.unwrap() else { panic!("no close frame") };
    assert_eq!(frame.code.0, 1009);
    app.until("log[-1].get('code') == 1009").await;
    app.stop().await;
}

fn pinging(every: u64, timeout: u64) -> Options {
    let websocket = WebSockets {
        ping: Duration::from_millis(every),
        ping_timeout: Duration::from_millis(timeout),
        ..WebSockets::default()
    };
    Options { websocket, ..Options::default() }
}

#[tokio::test]
async fn a_client_that_answers_pings_is_kept_and_a_silent_one_is_given_up() {
    let app = App::with(ECHO, pinging(50, 300)).await.unwrap();
    let mut client = open(&app).await;
    // Receiving answers them.
    for _ in 0..10 {
        assert!(matches!(receive(&mut client).await, Ok(Message::Ping(_))));
    }
    assert_eq!(app.eval("len(log)"), "2");
    // From now on nothing is read, and so nothing is answered.
    app.until("log[-1] == {'type': 'websocket.disconnect', 'code': 1006, 'reason': ''}").await;
    app.stop().await;
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_long_frame_is_alive() {
    let app = App::with(ECHO, pinging(50, 150)).await.unwrap();
    let mut raw = open(&app).await.into_inner();
    let head = [0x82, 0xFE, 0x03, 0xE8, 0, 0, 0, 0];
    tokio::io::AsyncWriteExt::write_all(&mut raw, &head).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        tokio::io::AsyncWriteExt::write_all(&mut raw, &[7; 100]).await.unwrap();
    }
    app.until("log[-1].get('bytes') == bytes([7] * 1000)").await;
    app.stop().await;
}

#[tokio::test]
async fn without_an_interval_nobody_is_asked() {
    let app = App::with(ECHO, pinging(0, 10)).await.unwrap();
    let mut client = open(&app).await;
    let asked = tokio::time::timeout(std::time::Duration::from_millis(200), client.recv()).await;
    assert!(asked.is_err(), "{asked:?}");
    app.stop().await;
}

#[tokio::test]
async fn sending_on_a_closed_connection_raises_an_oserror_of_our_own() {
    let app = App::start(
        "log = []
async def app(scope, receive, send):
    assert scope['type'] == 'websocket'
    await send({'type': 'websocket.accept'})
    await receive()
    for message in ({}, {'text': 'a', 'bytes': b'b'}, {'text': None}, {'text': b'a'}, {'bytes': 'a'}):
        try:
            await send({'type': 'websocket.send', **message})
        except Exception as error:
            log.append(type(error).__name__)
    await send({'type': 'websocket.send', 'text': 'a', 'bytes': None})
    if scope['query_string'] == b'q=2':
        await send({'type': 'websocket.close', 'reason': 'ü' * 100})
    else:
        while (await receive())['type'] != 'websocket.disconnect': pass
    try:
        await send({'type': 'websocket.send', 'text': 'late'})
    except OSError as error:
        log.append((type(error).__name__, type(error).__module__))
        raise
",
    )
    .await;
    let mut client = open(&app).await;
    client.send(Message::text("go")).await.unwrap();
    assert_eq!(receive(&mut client).await.unwrap(), Message::text("a"));
    // A reason is any string; a frame has room for 123 bytes of it.
    let Message::Close(Some(frame)) = receive(&mut client).await.unwrap() else { panic!("no close frame") };
    assert_eq!((frame.code.0, frame.reason.as_str()), (1000, "ü".repeat(61).as_str()));
    app.until("len(log) == 6").await;
    assert_eq!(
        app.eval("log"),
        "['ValueError', 'ValueError', 'ValueError', 'TypeError', 'TypeError', \
         ('ClientDisconnected', 'hawksbill')]"
    );
    app.stop().await;
}
