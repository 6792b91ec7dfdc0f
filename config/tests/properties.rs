//! Laws of reading that hold for any text.

use config::words::{Ports, Protocol, ServiceKey};
use proptest::prelude::*;
use proptest::sample::Index;

const VALID: &str = include_str!("every-key.toml");

/// Pieces that a mutation puts in: what TOML and the vocabulary are sensitive to.
const PIECES: &[&str] = &[
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r",
    "\0",
    "\u{feff}",
    "é",
    "-1",
    "0",
    "99999999999999999999",
    "1e400",
    "nan",
    "true",
    "1979-05-27",
    "\\u0000",
    "::1",
    "0.0.0.0/0",
    "/33",
    ":0",
    "-0",
    ":80-90",
    "[2001:db8::1]:80",
    "::ffff:192.0.2.1",
    "fe80::1",
    "2001:db8::/64",
    "@gold",
    "255.255.255.255",
    "[service]",
    "[[service.backend]]",
    "backend = []",
    "check = {}",
    "port = []",
    "[[port.vlan]]",
    "[[snat_pool]]",
    "[[class]]",
    "devices = []",
    "gateway = true",
    "tunnel = { type = 'gue' }",
    "spread = '172.16.0.0/16'",
];

/// One careless edit of the file.
#[derive(Clone, Debug)]
enum Edit {
    Cut(Index, usize),
    Insert(Index, &'static str),
    Repeat(Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), 1..40_usize).prop_map(|(at, len)| Edit::Cut(at, len)),
        (any::<Index>(), prop::sample::select(PIECES)).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (any::<Index>(), 1..80_usize).prop_map(|(at, len)| Edit::Repeat(at, len)),
    ]
}

fn apply(text: &str, edit: &Edit) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let place = |at: &Index| at.index(chars.len() + 1);
    let end = |start: usize, len: usize| (start + len).min(chars.len());
    match edit {
        Edit::Cut(at, len) => {
            let start = place(at);
            chars.drain(start..end(start, *len));
        }
        Edit::Insert(at, piece) => {
            let start = place(at);
            chars.splice(start..start, piece.chars());
        }
        Edit::Repeat(at, len) => {
            let start = place(at);
            let again = chars[start..end(start, *len)].to_vec();
            chars.splice(start..start, again);
        }
    }
    chars.into_iter().collect()
}

/// Reading ends with a configuration or with problems that stand in the text, in order, one a line.
fn reads(text: &str) -> Result<(), TestCaseError> {
    let Err(problems) = config::parse("t", text) else { return Ok(()) };
    prop_assert!(!problems.is_empty());
    prop_assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &problems {
        let line = lines.get(problem.line - 1).map(|line| line.chars().count());
        prop_assert!(line.is_some_and(|len| (1..=len + 1).contains(&problem.column)), "{}", problem);
        prop_assert!(!problem.to_string().contains(char::is_control), "{}", problem);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        reads(&text)?;
    }

    #[test]
    fn any_edits_of_a_valid_file_are_read_or_refused(edits in prop::collection::vec(edit(), 1..6)) {
        let text = edits.iter().fold(VALID.to_owned(), |text, edit| apply(&text, edit));
        reads(&text)?;
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(
        line in any::<Index>(),
        value in prop_oneof![Just("[[]]"), Just("{}"), Just("''"), Just("-0"), Just("0.5"), Just("[1, 'a', {}]")],
    ) {
        let mut lines: Vec<String> = VALID.lines().map(str::to_owned).collect();
        let line = line.index(lines.len());
        if let Some((key, _)) = lines[line].split_once(" = ") {
            lines[line] = format!("{key} = {value}");
        }
        reads(&lines.join("\n"))?;
    }
}

proptest! {
    #[test]
    fn keys_of_services_read_back_as_written(
        tcp in any::<bool>(),
        address in any::<std::net::IpAddr>(),
        ports in (1..=u16::MAX, 1..=u16::MAX),
        class in prop::option::of("[a-zA-Z0-9_-]{1,15}"),
    ) {
        let key = ServiceKey {
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            address,
            ports: Ports { first: ports.0.min(ports.1), last: ports.0.max(ports.1) },
            class: class.map(|class| class.parse().unwrap()),
        };
        prop_assert_eq!(key.to_string().parse(), Ok(key));
    }
}

#[test]
fn every_beginning_of_a_valid_file_is_read_or_refused() {
    for (end, _) in VALID.char_indices() {
        reads(&VALID[..end]).unwrap();
    }
}
