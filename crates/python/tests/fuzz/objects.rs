//! Objects of Python at random, as expressions: what fits, what nearly fits, and what fails wherever it is touched.

use proptest::prelude::*;

/// The classes that the expressions name.
pub(crate) const CLASSES: &str = "
import io, os, sys, tempfile
class Hostile:
    '''Raises whatever is done with it.'''
    def fail(self, *_, **__):
        raise ValueError('hostile')
    __len__ = __iter__ = __next__ = __getitem__ = __bool__ = __int__ = __index__ = __float__ = fail
    __eq__ = __hash__ = __str__ = __repr__ = __bytes__ = __buffer__ = __fspath__ = __call__ = fail
    keys = get = items = close = read = fileno = tell = fail
class Text(str): pass
class Octets(bytes): pass
class Pairs(list): pass
class Pair(tuple): pass
class Liar:
    '''Says that it is endless.'''
    def __init__(self, inner): self.inner = inner
    def __len__(self): return sys.maxsize
    def __iter__(self): return iter(self.inner)
    def __getitem__(self, at): return self.inner[at]
class Closing:
    '''Iterates, and fails when it is closed, or before.'''
    def __init__(self, items, bad=False): self.items, self.bad = iter(items), bad
    def __iter__(self): return self
    def __next__(self): return next(self.items)
    def close(self):
        if self.bad: raise OSError('cannot be closed')
def blocks(items, end=None):
    yield from items
    if end is not None: raise end
def on_disk(content, position=0):
    file = tempfile.TemporaryFile()
    file.write(bytes(content))
    file.seek(position)
    return file
";

/// Text of Python: escapes for everything, surrogates included.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let odd = prop_oneof![0..32_u32, 0x7F..0x100_u32, 0xD800..0xE000_u32, 0..0x11_0000_u32];
    prop_oneof![
        3 => "[ -~&&[^'\\\\]]{0,12}".prop_map(|text| format!("'{text}'")),
        1 => prop::collection::vec(odd, 0..6).prop_map(|codes| format!("''.join(map(chr, {codes:?}))")),
        1 => Just("'a\\r\\nset-cookie: b'".to_owned()),
        1 => Just("Text('x-a')".to_owned()),
    ]
}

/// Bytes, and what else may be taken for them.
pub(crate) fn octets() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ -~&&[^'\\\\]]{0,12}".prop_map(|text| format!("b'{text}'")),
        1 => prop::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| format!("bytes({bytes:?})")),
        1 => Just("b'a\\r\\nset-cookie: b'".to_owned()),
        1 => prop::sample::select(vec![
            "bytearray(b'ab')", "memoryview(b'a-b-')[::2]", "Octets(b'ab')", "b''", "bytes(70_000)",
            "memoryview(b'abcd').cast('I')",
        ]).prop_map(str::to_owned),
    ]
}

/// Anything.
pub(crate) fn thing() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        text(),
        octets(),
        prop::sample::select(vec![
            "None",
            "True",
            "False",
            "-1",
            "0",
            "99",
            "100",
            "199",
            "200",
            "204",
            "304",
            "999",
            "1000",
            "2**16",
            "2**70",
            "1.5",
            "float('nan')",
            "200.0",
            "1j",
            "Ellipsis",
            "object()",
            "object",
            "Hostile()",
            "iter(())",
            "len",
            "io.BytesIO(b'memory')",
            "io.StringIO('memory')",
            "on_disk(b'on disk')",
            "set()",
            "range(3)",
            "lambda: None",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let list =
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
        prop_oneof![
            list.clone(),
            list.clone().prop_map(|list| format!("tuple({list})")),
            (text(), inner).prop_map(|(key, value)| format!("{{{key}: {value}}}")),
            list.clone().prop_map(|list| format!("Pairs({list})")),
            list.clone().prop_map(|list| format!("Liar({list})")),
            list.clone().prop_map(|list| format!("blocks({list})")),
            list.prop_map(|list| format!("Closing({list}, True)")),
        ]
    })
}

/// A list of headers: mostly pairs of `part`, which are mostly right.
pub(crate) fn headers(letter: &'static str, part: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    let good = ("[a-zA-Z-]{1,9}", "[ -~&&[^'\\\\]]{0,12}")
        .prop_map(move |(name, value)| format!("({letter}'X-{name}', {letter}'{value}')"));
    let known = prop::sample::select(vec![
        ("Content-Length", "6"),
        ("Content-Length", "3"),
        ("Content-Length", "x"),
        ("Content-Length", "70000"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Upgrade", "websocket"),
        ("Content-Type", "text/plain"),
        ("Date", "today"),
        ("Server", "turtle"),
    ])
    .prop_map(move |(name, value)| format!("({letter}'{name}', {letter}'{value}')"));
    let pair = prop_oneof![
        12 => good,
        4 => known,
        1 => (part.clone(), part.clone()).prop_map(|(name, value)| format!("({name}, {value})")),
        1 => (part.clone(), part).prop_map(|(name, value)| format!("Pair([{name}, {value}])")),
        1 => thing(),
    ];
    let list = prop::collection::vec(pair, 0..5).prop_map(|pairs| format!("[{}]", pairs.join(", ")));
    prop_oneof![
        12 => list.clone(),
        1 => list.clone().prop_map(|list| format!("Pairs({list})")),
        1 => list.clone().prop_map(|list| format!("Liar({list})")),
        1 => list.clone().prop_map(|list| format!("tuple({list})")),
        1 => list.clone().prop_map(|list| format!("blocks({list})")),
        1 => list.prop_map(|list| format!("{list} * 30_000")),
        1 => thing(),
    ]
}
