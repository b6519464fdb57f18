//! Applications that do anything, in any order: each is answered by a well-formed response, all of whose headers are
//! those that it gave in one go, or by a failure; and the next request is served.

use hawksbill_core::{Body, Error, Kind};
use http::{HeaderMap, Method, Request, Response};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::Subject;
use crate::common::{App, whole};
use crate::objects::{CLASSES, headers, octets, text, thing};

const WSGI: &str = "
plan, stubborn, result = [], False, lambda wrap: []
def head(step):
    '''What a start says, where it says what may be said.'''
    try:
        status, headers = step[1:3]
        pairs = [(name.lower().encode('latin-1'), value.strip(' \\t').encode('latin-1')) for name, value in headers]
        return int(status[:3]), pairs
    except Exception:
        return None
def app(environ, start_response):
    if environ['PATH_INFO'] == '/alive':
        start_response('200 OK', [])
        return [b'alive']
    write = None
    for kind, *values in plan:
        try:
            if kind == 'start':
                write = start_response(*values)
            elif kind == 'write' and write is not None:
                write(*values)
            elif kind == 'raise':
                raise values[0]
        except Exception:
            if not stubborn:
                raise
    return result(environ['wsgi.file_wrapper'])
";

const ASGI: &str = "
plan, stubborn = [], False
OURS = {'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailers',
        'transfer-encoding', 'upgrade'}
def head(message):
    '''What a start says, where it says what may be said.'''
    try:
        if message['type'] != 'http.response.start':
            return None
        pairs = [(bytes(name).lower(), bytes(value).strip(b' \\t')) for name, value in message.get('headers') or []]
        return int(message['status']), [pair for pair in pairs if pair[0].decode('latin-1') not in OURS]
    except Exception:
        return None
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise NotImplementedError
    if scope['path'] == '/alive':
        await send({'type': 'http.response.start', 'status': 200})
        await send({'type': 'http.response.body', 'body': b'alive'})
        return
    for message in plan:
        try:
            if isinstance(message, BaseException):
                raise message
            await send(message)
        except Exception:
            if not stubborn:
                raise
";

/// What an application does, as expressions.
#[derive(Clone, Debug)]
struct Act {
    head: bool,
    plan: Vec<String>,
    stubborn: bool,
    result: String,
}

fn failure() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "ValueError('planned')",
        "SystemExit(3)",
        "KeyboardInterrupt()",
        "GeneratorExit()",
        "StopIteration()",
        "StopAsyncIteration()",
        "MemoryError()",
        "RecursionError()",
        "BaseException(Hostile())",
        "Text",
    ])
    .prop_map(str::to_owned)
}

fn status() -> impl Strategy<Value = String> {
    prop_oneof![
        10 => (200..600_u16, "[ -~&&[^'\\\\]]{0,8}").prop_map(|(code, reason)| format!("'{code} {reason}'")),
        2 => any::<u16>().prop_map(|code| format!("'{code} Some'")),
        1 => "[ -~&&[^'\\\\]]{0,8}".prop_map(|text| format!("'{text}'")),
        1 => text(),
        1 => thing(),
    ]
}

fn list(item: impl Strategy<Value = String>, most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(item, 0..most).prop_map(|items| format!("[{}]", items.join(", ")))
}

fn iterable() -> impl Strategy<Value = String> {
    let blocks = || list(prop_oneof![8 => octets(), 1 => thing()], 4);
    prop_oneof![
        4 => blocks(),
        1 => blocks().prop_map(|list| format!("tuple({list})")),
        2 => blocks().prop_map(|list| format!("blocks({list})")),
        1 => (blocks(), failure()).prop_map(|(list, failure)| format!("blocks({list}, {failure})")),
        2 => (blocks(), any::<bool>()).prop_map(|(list, bad)| {
            format!("Closing({list}, {})", if bad { "True" } else { "False" })
        }),
        1 => blocks().prop_map(|list| format!("Liar({list})")),
        1 => octets().prop_map(|content| format!("wrap(on_disk({content}), 3)")),
        1 => octets().prop_map(|content| format!("wrap(io.BytesIO({content}))")),
        1 => thing().prop_map(|thing| format!("wrap({thing})")),
        1 => thing(),
    ]
}

fn wsgi_act() -> impl Strategy<Value = Act> {
    let start = || (status(), headers("", text().boxed()));
    let step = prop_oneof![
        4 => start().prop_map(|(status, headers)| format!("('start', {status}, {headers})")),
        1 => (start(), prop_oneof![
            Just("(ValueError, ValueError('given'), None)".to_owned()), Just("sys.exc_info()".to_owned()), thing(),
        ]).prop_map(|((status, headers), exc_info)| format!("('start', {status}, {headers}, {exc_info})")),
        1 => prop_oneof![3 => octets(), 1 => thing()].prop_map(|block| format!("('write', {block})")),
        1 => failure().prop_map(|failure| format!("('raise', {failure})")),
    ];
    let first = start().prop_map(|(status, headers)| format!("('start', {status}, {headers})"));
    let plan = (prop::option::weighted(0.8, first), prop::collection::vec(step, 0..3))
        .prop_map(|(first, more)| first.into_iter().chain(more).collect());
    (any::<bool>(), plan, any::<bool>(), iterable()).prop_map(|(head, plan, stubborn, result)| Act {
        head,
        plan,
        stubborn,
        result,
    })
}

fn asgi_act() -> impl Strategy<Value = Act> {
    let start = || {
        let code = prop_oneof![
            8 => (200..600_u16).prop_map(|code| code.to_string()),
            1 => prop::sample::select(vec!["-1", "0", "99", "100", "103", "199", "1000"]).prop_map(str::to_owned),
            1 => thing(),
        ];
        let more = prop_oneof![4 => Just(String::new()), 1 => thing().prop_map(|thing| format!(", 'trailers': {thing}"))];
        (code, headers("b", octets().boxed()), more).prop_map(|(code, headers, more)| {
            format!("{{'type': 'http.response.start', 'status': {code}, 'headers': {headers}{more}}}")
        })
    };
    let more = || prop_oneof![3 => Just("True".to_owned()), 3 => Just("False".to_owned()), 1 => thing()];
    let body = prop_oneof![8 => octets(), 1 => thing()];
    let step = prop_oneof![
        6 => (body, more()).prop_map(|(body, more)| {
            format!("{{'type': 'http.response.body', 'body': {body}, 'more_body': {more}}}")
        }),
        2 => start(),
        1 => (octets(), thing(), thing(), more()).prop_map(|(content, offset, count, more)| format!(
            "{{'type': 'http.response.zerocopysend', 'file': on_disk({content}), 'offset': {offset}, 'count': {count}, 'more_body': {more}}}"
        )),
        1 => thing().prop_map(|path| format!("{{'type': 'http.response.pathsend', 'path': {path}}}")),
        1 => headers("b", octets().boxed()).prop_map(|headers| format!(
            "{{'type': 'http.response.trailers', 'headers': {headers}}}"
        )),
        1 => text().prop_map(|kind| format!("{{'type': {kind}}}")),
        1 => thing(),
        1 => failure(),
    ];
    let plan = (prop::option::weighted(0.8, start()), prop::collection::vec(step, 0..4))
        .prop_map(|(first, more)| first.into_iter().chain(more).collect());
    (any::<bool>(), plan, any::<bool>()).prop_map(|(head, plan, stubborn)| Act {
        head,
        plan,
        stubborn,
        result: String::new(),
    })
}

pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What each start of the plan says, where that may be said.
pub(crate) fn given(app: &App) -> Vec<(u16, Pairs)> {
    let told = app.eval(
        "'\\n'.join(' '.join([str(said[0]), *(a.hex() + ':' + b.hex() for a, b in said[1])]) for said in heads if said)",
    );
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let one = |line: &str| {
        let mut words = line.split(' ');
        let status = words.next()?.parse().ok()?;
        let pairs =
            words.map(|pair| pair.split_once(':').unwrap()).map(|(name, value)| (bytes(name), bytes(value)));
        Some((status, pairs.collect()))
    };
    told.lines().filter_map(one).collect()
}

pub(crate) fn sorted(pairs: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Pairs {
    // The length is the server's affair where the application said none, or where there is no body.
    let mut pairs: Pairs = pairs.filter(|(name, _)| name != b"content-length").collect();
    pairs.sort();
    pairs
}

pub(crate) fn of(headers: &HeaderMap) -> Pairs {
    sorted(headers.iter().map(|(name, value)| {
        let value = value.as_bytes().trim_ascii();
        (name.as_str().as_bytes().to_vec(), value.to_vec())
    }))
}

fn act(runtime: &Runtime, app: &App, act: &Act) -> Result<(), TestCaseError> {
    let plan = format!("[{}]", act.plan.join(", "));
    let stubborn = if act.stubborn { "True" } else { "False" };
    let result =
        if act.result.is_empty() { String::new() } else { format!(", result=lambda wrap: {}", act.result) };
    // Made twice: a generator that was looked at would have nothing left to give.
    app.eval(&format!(
        "globals().update(heads=[head(step) for step in {plan}], plan={plan}, stubborn={stubborn}{result})"
    ));
    let method = if act.head { Method::HEAD } else { Method::GET };
    let answer = runtime.block_on(app.ask(Request::builder().method(method).uri("/"), Body::empty()));
    let judged = match answer {
        Err(error) => judge_failure(&error),
        Ok(response) => judge(runtime, app, act, response),
    };
    // Whoever asks next is served by the same threads.
    let (status, body) = runtime.block_on(app.get("/alive"));
    prop_assert_eq!((status, &*body), (200, &b"alive"[..]));
    judged
}

/// A failure is that of the application, and it is one that was seen.
pub(crate) fn judge_failure(error: &Error) -> Result<(), TestCaseError> {
    prop_assert_eq!(error.kind(), Kind::Internal);
    prop_assert!(!error.to_string().contains("was stopped"), "lost without a word: {}", error);
    Ok(())
}

fn judge(runtime: &Runtime, app: &App, act: &Act, response: Response<Body>) -> Result<(), TestCaseError> {
    let (status, seen) = (response.status().as_u16(), of(response.headers()));
    prop_assert!((200..1000).contains(&status), "{}", status);
    let given = given(app);
    let fits = given.iter().any(|(code, pairs)| *code == status && sorted(pairs.iter().cloned()) == seen);
    prop_assert!(fits, "{} {:?} is none of {:?}", status, seen, given);
    for name in ["connection", "transfer-encoding", "upgrade"] {
        prop_assert!(!response.headers().contains_key(name), "{} is the server's", name);
    }
    let lengths: Vec<_> = response.headers().get_all("content-length").iter().cloned().collect();
    prop_assert!(lengths.len() <= 1);
    let promised = lengths.first().map(|length| length.to_str().unwrap().parse::<usize>().unwrap());
    let empty = act.head || [204, 304].contains(&status);
    // A body that fails is cut off; one that ends has what was promised.
    if let Ok(body) = runtime.block_on(whole(response)) {
        prop_assert!(!empty || body.is_empty());
        prop_assert!(
            empty || promised.is_none_or(|length| length == body.len()),
            "{:?}: {}",
            promised,
            body.len()
        );
    }
    Ok(())
}

#[test]
fn whatever_a_wsgi_application_does_is_an_answer_or_its_failure() {
    Subject::new(&format!("{CLASSES}{WSGI}"), 1500)
        .check(&wsgi_act(), |runtime, app, plan| act(runtime, app, &plan));
}

#[test]
fn whatever_an_asgi_application_sends_is_an_answer_or_its_failure() {
    Subject::new(&format!("{CLASSES}{ASGI}"), 1500)
        .check(&asgi_act(), |runtime, app, plan| act(runtime, app, &plan));
}
