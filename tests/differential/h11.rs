//! Asks h11, in as many processes as there are CPUs.

use std::io::{BufWriter, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::verdict::{Body, Request, Verdict};

/// Debian's, for which `cargo xtask setup` installs h11.
const PYTHON: &str = "/usr/bin/python3";

/// `None` when h11 is not there, which only CI does not forgive.
pub fn verdicts(heads: &[Vec<u8>]) -> Option<Vec<Verdict>> {
    let found = Command::new(PYTHON).args(["-I", "-c", "import h11"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no h11; see cargo xtask setup");
        println!("skipped: no Python module h11");
        return None;
    }
    let processes = thread::available_parallelism().map_or(1, usize::from);
    let share = heads.len().div_ceil(processes);
    Some(thread::scope(|scope| {
        let parts: Vec<_> =
            heads.chunks(share).map(|heads| scope.spawn(move || ask(heads))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    }))
}

fn ask(heads: &[Vec<u8>]) -> Vec<Verdict> {
    let script = format!("{}/../tests/differential/h11_oracle.py", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(PYTHON);
    command.args(["-I", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut answers = Vec::new();
    thread::scope(|scope| {
        let input = process.stdin.take().unwrap();
        scope.spawn(|| write(input, heads));
        process.stdout.take().unwrap().read_to_end(&mut answers).unwrap();
    });
    succeeded(process);
    let lines = answers.strip_suffix(b"\n").unwrap_or(&answers);
    let verdicts: Vec<_> = lines.split(|byte| *byte == b'\n').map(read).collect();
    assert_eq!(verdicts.len(), heads.len());
    verdicts
}

fn write(input: impl Write, heads: &[Vec<u8>]) {
    let mut input = BufWriter::new(input);
    for head in heads {
        input.write_all(&u32::try_from(head.len()).unwrap().to_be_bytes()).unwrap();
        input.write_all(head).unwrap();
    }
    input.flush().unwrap();
}

fn succeeded(mut process: Child) {
    let status = process.wait().unwrap();
    assert!(status.success(), "h11_oracle.py: {status}");
}

fn read(line: &[u8]) -> Verdict {
    let parts: Vec<_> = line.split(|byte| *byte == 0).collect();
    match parts.as_slice() {
        [b"W"] => Verdict::Wait,
        [b"R", reason] => Verdict::Refuse(String::from_utf8_lossy(reason).into_owned()),
        [b"T", consumed, method, target, version, body, fields @ ..] => Verdict::Take(Request {
            consumed: number(consumed) as usize,
            method: method.to_vec(),
            target: target.to_vec(),
            minor_version: number(&version[2..]) as u8,
            fields: fields.chunks(2).map(|f| (f[0].to_vec(), f[1].to_vec())).collect(),
            body: Some(match *body {
                b"chunked" => Body::Chunked,
                length => Body::Bytes(number(length)),
            }),
        }),
        _ => panic!("h11_oracle.py said {}", line.escape_ascii()),
    }
}

/// One too large for anybody is the largest.
fn number(digits: &[u8]) -> u128 {
    let digits = str::from_utf8(digits).unwrap();
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
    digits.parse().unwrap_or(u128::MAX)
}
