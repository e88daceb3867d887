//! A case as its file has it: what a client and an origin send, and what each may get to see.

use std::path::Path;

use toml::{Table, Value};

/// One rule, tried once.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file it is in, without extension.
    pub theme: String,
    pub name: String,
    /// Where the rule is written, as `RFC 9112 §3.2`.
    pub rule: String,
    pub level: Level,
    pub request: Vec<u8>,
    pub half_close: bool,
    /// What the origin answers; `None` is a plain 200.
    pub response: Option<Vec<u8>>,
    /// Answer when the head has come, not the whole request.
    pub early: bool,
    pub after: After,
    /// Alternatives the rule leaves, for each expected answer.
    pub answers: Vec<Vec<Answer>>,
    /// What this gateway does of them, if that is less.
    pub ours: Vec<Vec<Answer>>,
    pub connection: Option<Connection>,
    pub origin: Seen,
    pub client: Seen,
    /// Exactly the body of the last answer.
    pub body: Option<Vec<u8>>,
    /// The last answer must be seen to be incomplete.
    pub cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Must,
    Should,
    /// The RFCs leave it open; what is asked for here is the safe choice.
    May,
}

/// What becomes of the origin's connection after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Keep,
    Close,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// `4xx`
    Class(u16),
    /// Closed without a word.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    Stays,
    Closes,
}

/// What one side must and must not have got.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub nothing: bool,
    pub has: Vec<Vec<u8>>,
    pub lacks: Vec<Vec<u8>>,
    /// Heads of requests.
    pub requests: Option<usize>,
    /// Whether any request arrived whole.
    pub complete: Option<bool>,
}

impl Answer {
    pub fn allows(self, status: Option<u16>) -> bool {
        match (self, status) {
            (Self::Status(wanted), Some(status)) => wanted == status,
            (Self::Class(class), Some(status)) => class == status / 100,
            (Self::None, status) => status.is_none(),
            (_, None) => false,
        }
    }
}

/// Every case of every file, in order.
pub fn load() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/cases");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        let theme = file.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let table: Table =
            text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for entry in table["case"].as_array().unwrap() {
            let case = case(theme, entry.as_table().unwrap().clone());
            let same = |other: &&Case| other.name == case.name;
            assert!(cases.iter().find(same).is_none(), "two cases named {}", case.name);
            cases.push(case);
        }
    }
    cases
}

fn case(theme: &str, mut entry: Table) -> Case {
    let name = text(&mut entry, "name").expect("a name");
    let bytes = |entry: &mut Table, key| text(entry, key).map(|text| unescape(&text));
    let mut origin = Seen::default();
    match entry.remove("origin") {
        Some(Value::String(word)) if word == "nothing" => origin.nothing = true,
        Some(Value::Table(table)) => origin = seen(&name, table),
        Some(other) => panic!("{name}: origin: {other}"),
        None => {}
    }
    let client = match entry.remove("client") {
        Some(Value::Table(table)) => seen(&name, table),
        Some(other) => panic!("{name}: client: {other}"),
        None => Seen::default(),
    };
    let answers = answers(&name, entry.remove("answers").expect("answers"));
    let ours = entry.remove("ours").map_or(answers.clone(), |ours| self::answers(&name, ours));
    let case = Case {
        theme: theme.to_owned(),
        rule: text(&mut entry, "rule").expect("a rule"),
        level: match text(&mut entry, "level").as_deref() {
            None | Some("must") => Level::Must,
            Some("should") => Level::Should,
            Some("may") => Level::May,
            Some(other) => panic!("{name}: level {other}"),
        },
        request: bytes(&mut entry, "request").expect("a request"),
        half_close: flag(&mut entry, "half_close"),
        response: bytes(&mut entry, "response"),
        early: flag(&mut entry, "early"),
        after: match text(&mut entry, "after").as_deref() {
            None | Some("keep") => After::Keep,
            Some("close") => After::Close,
            Some("reset") => After::Reset,
            Some(other) => panic!("{name}: after {other}"),
        },
        connection: match text(&mut entry, "connection").as_deref() {
            None => None,
            Some("stays") => Some(Connection::Stays),
            Some("closes") => Some(Connection::Closes),
            Some(other) => panic!("{name}: connection {other}"),
        },
        body: bytes(&mut entry, "body"),
        cut: flag(&mut entry, "cut"),
        name,
        answers,
        ours,
        origin,
        client,
    };
    assert!(entry.is_empty(), "{}: unknown keys: {entry}", case.name);
    case
}

fn seen(name: &str, mut table: Table) -> Seen {
    let mut list = |key: &str| -> Vec<Vec<u8>> {
        let Some(value) = table.remove(key) else { return Vec::new() };
        value.as_array().unwrap().iter().map(|text| unescape(text.as_str().unwrap())).collect()
    };
    let (has, lacks) = (list("has"), list("lacks"));
    let requests = table.remove("requests").map(|number| number.as_integer().unwrap() as usize);
    let complete = table.remove("complete").map(|flag| flag.as_bool().unwrap());
    assert!(table.is_empty(), "{name}: unknown keys: {table}");
    Seen { nothing: false, has, lacks, requests, complete }
}

/// `["400|501", "none"]`
fn answers(name: &str, value: Value) -> Vec<Vec<Answer>> {
    let one = |text: &str| match text {
        "none" => Answer::None,
        text => match text.strip_suffix("xx") {
            Some(class) => Answer::Class(class.parse().unwrap()),
            None => Answer::Status(text.parse().unwrap_or_else(|_| panic!("{name}: {text}"))),
        },
    };
    let list = value.as_array().unwrap_or_else(|| panic!("{name}: answers"));
    list.iter().map(|text| text.as_str().unwrap().split('|').map(one).collect()).collect()
}

fn text(entry: &mut Table, key: &str) -> Option<String> {
    entry.remove(key).map(|value| value.as_str().unwrap().to_owned())
}

fn flag(entry: &mut Table, key: &str) -> bool {
    entry.remove(key).is_some_and(|value| value.as_bool().unwrap())
}

/// `\r`, `\n`, `\t`, `\0`, `\xNN` and `\\` as usual; `{a*100}` is a hundred times `a`; line breaks of
/// the file mean nothing.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        rest = &rest[char.len_utf8()..];
        match char {
            '\n' => {}
            '\\' => {
                let (kind, after) = rest.split_at(1);
                rest = after;
                match kind {
                    "r" => bytes.push(b'\r'),
                    "n" => bytes.push(b'\n'),
                    "t" => bytes.push(b'\t'),
                    "0" => bytes.push(0),
                    "\\" => bytes.push(b'\\'),
                    "x" => {
                        let (digits, after) = rest.split_at(2);
                        rest = after;
                        bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    }
                    other => panic!("no such escape: \\{other}"),
                }
            }
            '{' if rest.contains('*')
                && rest.split_once('}').is_some_and(|(in_braces, _)| {
                    in_braces
                        .rsplit_once('*')
                        .is_some_and(|(_, count)| count.parse::<usize>().is_ok())
                }) =>
            {
                let (in_braces, after) = rest.split_once('}').unwrap();
                let (part, count) = in_braces.rsplit_once('*').unwrap();
                rest = after;
                bytes.extend(unescape(part).repeat(count.parse().unwrap()));
            }
            char => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}
