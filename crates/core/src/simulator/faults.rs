//! Bad records, every code in several forms. They are added beside good records and never replace one.

use std::io::Write as _;

use rand::Rng as _;
use rand_pcg::Pcg32;

/// Which faults to mix in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// None.
    None,
    /// Every kind, about one record in a hundred.
    All,
    /// Every kind except records of more than 1 MiB, which a topic's `max.message.bytes` may refuse.
    WithoutTooLarge,
}

/// One record in this many is bad.
const ONE_IN: u32 = 100;
/// One record in this many is larger than 1 MiB, the first after a quarter of it: such a record costs as much as ten
/// thousand others.
const TOO_LARGE_ONE_IN: u64 = 20_000;
/// Bytes of such a record's value.
const TOO_LARGE_BYTES: usize = (1 << 20) + 1;

/// Decides when the next fault comes.
#[derive(Debug)]
pub(super) struct FaultPlan {
    random: Pcg32,
    faults: Faults,
    records: u64,
    /// A fault is always followed by the good record that it preceded.
    just_had_one: bool,
}

/// A bad record that was written.
pub(super) struct Bad {
    /// The code that a worker must find.
    pub(super) code: &'static str,
    /// Whether the record has a key.
    pub(super) keyed: bool,
}

/// One bad record to write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    TooLarge,
    Form(&'static Form),
}

/// A form of bad record: its code, its key, its value.
#[derive(Debug)]
pub(super) struct Form {
    code: &'static str,
    key: Key,
    value: &'static [u8],
}

#[derive(Clone, Copy, Debug)]
enum Key {
    /// The id of the generator.
    Own,
    /// The id of another generator.
    Another,
    Empty,
    Null,
}

const fn form(code: &'static str, value: &'static [u8]) -> Form {
    Form { code, key: Key::Own, value }
}

/// In a value, `@` stands for the generator's id.
static FORMS: &[Form] = &[
    form("not_utf8", b"{\"generatorID\":\"@\",\"lat\":1,\"lon\":2,\"temperature\":70,\"pressure\":200,\"fuel\":900,\"note\":\"\xff\xfe\"}"),
    form("not_utf8", b"\xc3\x28"),
    form("not_json", br#"{"generatorID":"@","lat":40.6,"lon":-111.9,"temper"#),
    form("not_json", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":NaN,"pressure":200,"fuel":900}"#),
    form("not_json", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900,}"#),
    form("not_json", br#"{"generatorID":"@"}{"generatorID":"@"}"#),
    form("not_json", b""),
    form("not_object", br#"[{"generatorID":"@"}]"#),
    form("not_object", b"42"),
    form("not_object", br#""@""#),
    form("not_object", b"null"),
    form("duplicate_field", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900,"fuel":901}"#),
    form("duplicate_field", br#"{"generatorID":"@","lat":1,"lat":null}"#),
    form("missing_field", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":70,"pressure":200}"#),
    form("missing_field", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":null,"pressure":200,"fuel":900}"#),
    form("missing_field", b"{}"),
    form("wrong_type", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":"900"}"#),
    form("wrong_type", br#"{"generatorID":4,"lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900}"#),
    form("wrong_type", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900,"load":true}"#),
    form("wrong_type", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":[70],"pressure":200,"fuel":900}"#),
    form("out_of_range", br#"{"generatorID":"@","lat":90.5,"lon":2,"temperature":70,"pressure":200,"fuel":900}"#),
    form("out_of_range", br#"{"generatorID":"@","lat":1,"lon":-181,"temperature":70,"pressure":200,"fuel":900}"#),
    form("out_of_range", br#"{"generatorID":"@","lat":1,"lon":2,"temperature":1e999,"pressure":200,"fuel":900}"#),
    Form {
        code: "out_of_range",
        key: Key::Empty,
        value: br#"{"generatorID":"","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900}"#,
    },
    Form {
        code: "key_missing",
        key: Key::Null,
        value: br#"{"generatorID":"@","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900}"#,
    },
    Form {
        code: "key_mismatch",
        key: Key::Another,
        value: br#"{"generatorID":"@","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900}"#,
    },
];

impl FaultPlan {
    pub(super) fn new(seed: u64, faults: Faults) -> FaultPlan {
        // A separate stream, so that faults don't change what generators report.
        FaultPlan { random: super::random(seed, u64::MAX), faults, records: 0, just_had_one: false }
    }

    /// The next record's fault; `None` for a good record.
    pub(super) fn next(&mut self) -> Option<Fault> {
        if self.faults == Faults::None {
            return None;
        }
        self.records += 1;
        if self.faults == Faults::All && self.records % TOO_LARGE_ONE_IN == TOO_LARGE_ONE_IN / 4 {
            return Some(Fault::TooLarge);
        }
        self.just_had_one = !self.just_had_one && self.random.random_ratio(1, ONE_IN);
        self.just_had_one.then(|| Fault::Form(&FORMS[self.random.random_range(0..FORMS.len())]))
    }
}

impl Fault {
    /// Writes the record; `key` already holds the generator's id.
    pub(super) fn write(self, number: usize, key: &mut Vec<u8>, value: &mut Vec<u8>) -> Bad {
        match self {
            Fault::TooLarge => {
                let _ = write!(value, r#"{{"generatorID":"generator{number}","lat":1,"lon":2,"note":""#);
                value.resize(TOO_LARGE_BYTES - 2, b'x');
                value.extend_from_slice(b"\"}");
                Bad { code: "too_large", keyed: true }
            }
            Fault::Form(form) => {
                for byte in form.value {
                    match byte {
                        b'@' => value.extend_from_slice(key),
                        other => value.push(*other),
                    }
                }
                match form.key {
                    Key::Own | Key::Null => {}
                    Key::Another => key.extend_from_slice(b"0"),
                    Key::Empty => key.clear(),
                }
                Bad { code: form.code, keyed: !matches!(form.key, Key::Null) }
            }
        }
    }
}
