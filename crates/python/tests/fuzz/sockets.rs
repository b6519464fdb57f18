//! ASGI applications that send anything to a WebSocket, in any order: the client sees an opening handshake or a refusal
//! that is well-formed, then frames that are right, and of these only such as were sent.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use hawksbill_core::{Body, Error, Upgrade, Upgraded};
use hawksbill_websocket::client::ClientHandshake;
use hawksbill_websocket::{Config, Message, Role, WebSocket};
use http::{Request, Response};
use proptest::prelude::*;
use tokio::io::DuplexStream;

use crate::Subject;
use crate::common::{App, PATIENCE};
use crate::objects::{CLASSES, headers, octets, text, thing};
use crate::responses::{given, judge_failure, of, sorted};

const ASGI: &str = "
plan, stubborn, sent = [], False, []
OURS = {'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailers',
        'transfer-encoding', 'upgrade'}
def head(message):
    '''What an accept or a refusal says, where it says what may be said.'''
    try:
        status = {'websocket.accept': 101, 'websocket.close': 403}.get(message['type']) or int(message['status'])
        if message['type'] == 'websocket.close':
            return status, []
        pairs = [(bytes(name).lower(), bytes(value).strip(b' \\t')) for name, value in message.get('headers') or []]
        return status, [pair for pair in pairs if pair[0].decode('latin-1') not in OURS]
    except Exception:
        return None
async def app(scope, receive, send):
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200})
        await send({'type': 'http.response.body', 'body': b'alive'})
        return
    if scope['type'] != 'websocket':
        raise NotImplementedError
    await receive()
    for message in plan:
        try:
            if isinstance(message, BaseException):
                raise message
            await send(message)
            if message.get('bytes') is not None:
                sent.append('b' + bytes(message['bytes']).hex())
            elif message.get('text') is not None:
                sent.append('t' + message['text'].encode().hex())
        except Exception:
            if not stubborn:
                raise
";

fn plan() -> impl Strategy<Value = (Vec<String>, bool)> {
    let accept = || {
        let subprotocol = prop_oneof![
            4 => Just("None".to_owned()), 2 => Just("'chat'".to_owned()), 1 => text(), 1 => thing(),
        ];
        let own = prop::option::weighted(
            0.1,
            prop::sample::select(vec![
                "(b'sec-websocket-accept', b'a')",
                "(b'sec-websocket-protocol', b'chat')",
                "(b'sec-websocket-extensions', b'permessage-deflate')",
            ]),
        );
        (subprotocol, headers("b", octets().boxed()), own).prop_map(|(subprotocol, headers, own)| {
            let headers = own.map_or(headers.clone(), |own| format!("[{own}]"));
            format!("{{'type': 'websocket.accept', 'subprotocol': {subprotocol}, 'headers': {headers}}}")
        })
    };
    let code = prop_oneof![
        (900..5100_u32).prop_map(|code| code.to_string()),
        prop::sample::select(vec!["1000", "1005", "1006", "3000", "4999"]).prop_map(str::to_owned),
        thing(),
    ];
    let reason = prop_oneof![
        3 => text(),
        1 => Just("'é' * 100".to_owned()),
        1 => thing(),
    ];
    let step = prop_oneof![
        4 => prop_oneof![8 => text(), 1 => thing()].prop_map(|text| format!("{{'type': 'websocket.send', 'text': {text}}}")),
        4 => prop_oneof![8 => octets(), 1 => thing()].prop_map(|bytes| format!("{{'type': 'websocket.send', 'bytes': {bytes}}}")),
        1 => (text(), octets()).prop_map(|(text, bytes)| format!("{{'type': 'websocket.send', 'text': {text}, 'bytes': {bytes}}}")),
        2 => (code, reason).prop_map(|(code, reason)| format!("{{'type': 'websocket.close', 'code': {code}, 'reason': {reason}}}")),
        1 => accept(),
        1 => (200..600_u16, headers("b", octets().boxed())).prop_map(|(status, headers)| format!(
            "{{'type': 'websocket.http.response.start', 'status': {status}, 'headers': {headers}}}"
        )),
        1 => octets().prop_map(|body| format!("{{'type': 'websocket.http.response.body', 'body': {body}}}")),
        1 => thing(),
        1 => Just("ValueError('planned')".to_owned()),
    ];
    let plan = (prop::option::weighted(0.8, accept()), prop::collection::vec(step, 0..5))
        .prop_map(|(first, more)| first.into_iter().chain(more).collect());
    (plan, any::<bool>())
}

type Client = Option<WebSocket<DuplexStream>>;

async fn connect(app: &App) -> Result<(Response<Body>, Client), Error> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let upgrade = Upgrade::new(async move { Ok(Upgraded::new(near, Bytes::new())) });
    let handshake = ClientHandshake::new().unwrap().subprotocol("chat");
    let mut request = Request::get("/").extension(upgrade);
    request.headers_mut().unwrap().extend(handshake.headers());
    let response = app.ask(request, Body::empty()).await?;
    // The client's own judgement of the handshake: no second accept, and no protocol that it has not offered.
    let client = (response.status() == 101).then(|| {
        let agreed = handshake.verify(&response).expect("a handshake that the client takes");
        WebSocket::new(far, Role::Client, &Config { deflate: agreed.deflate, ..Config::default() })
    });
    Ok((response, client))
}

/// All that the client receives, and how it ended.
async fn received(client: &mut WebSocket<DuplexStream>) -> Result<Vec<String>, TestCaseError> {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, client.recv()).await;
        match next.map_err(|_| TestCaseError::fail("the WebSocket was never closed"))? {
            Ok(Message::Text(text)) => seen.push(format!("t{}", hex(text.as_bytes()))),
            Ok(Message::Binary(data)) => seen.push(format!("b{}", hex(&data))),
            Ok(Message::Close(Some(frame))) => {
                prop_assert!(frame.code.is_sendable() && frame.reason.len() <= 123, "{:?}", frame);
                return Ok(seen);
            }
            Ok(_) => {}
            Err(error) => return Err(TestCaseError::fail(format!("no close, but {error}"))),
        }
    }
}

async fn judge(app: &App, answer: Result<(Response<Body>, Client), Error>) -> Result<(), TestCaseError> {
    let (response, client) = match answer {
        Ok(answer) => answer,
        Err(error) => return judge_failure(&error),
    };
    let (status, mut seen) = (response.status().as_u16(), of(response.headers()));
    if status == 101 {
        seen.retain(|(name, _)| {
            !(name.starts_with(b"sec-websocket-") || name == b"upgrade" || name == b"connection")
        });
    }
    let given = given(app);
    let fits = given.iter().any(|(code, pairs)| *code == status && sorted(pairs.iter().cloned()) == seen);
    prop_assert!(fits, "{} {:?} is none of {:?}", status, seen, given);
    if let Some(mut client) = client {
        let seen = received(&mut client).await?;
        let all = async {
            while app.eval("sent") != format!("{seen:?}").replace('"', "'") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let same = tokio::time::timeout(Duration::from_secs(5), all).await;
        prop_assert!(same.is_ok(), "{:?} was received, {} sent", seen, app.eval("sent"));
    }
    Ok(())
}

#[test]
fn whatever_an_asgi_application_sends_a_client_gets_a_websocket_or_a_refusal() {
    Subject::new(&format!("{CLASSES}{ASGI}"), 1000).check(&plan(), |runtime, app, (plan, stubborn)| {
        let plan = format!("[{}]", plan.join(", "));
        let stubborn = if stubborn { "True" } else { "False" };
        app.eval(&format!(
            "globals().update(heads=[head(step) for step in {plan}], plan={plan}, stubborn={stubborn}, sent=[])"
        ));
        let judged = runtime.block_on(async { judge(app, connect(app).await).await });
        let (status, body) = runtime.block_on(app.get("/alive"));
        prop_assert_eq!((status, &*body), (200, &b"alive"[..]));
        judged
    });
}
