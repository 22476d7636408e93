//! The frozen files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub(crate) fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn vector_text(what: &str, rules: &str, lines: &[String]) -> String {
    format!("what: {what}\nrules: {rules}\n\n{}\n", lines.join("\n"))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

pub(crate) fn frozen(name: &str) -> Option<String> {
    std::fs::read_to_string(crate_file(&format!("vectors/{name}.txt"))).ok()
}

/// The frozen lines of a vector, after its head.
pub(crate) fn frozen_body(name: &str) -> Option<String> {
    Some(frozen(name)?.split_once("\n\n").expect("a vector has an empty line after its head").1.to_owned())
}

/// What is wrong with a vector's file, with the file as the code would write it.
pub(crate) fn difference(name: &str, what: &str, rules: &str, lines: &[String]) -> Option<String> {
    let expected = vector_text(what, rules, lines);
    let fault = match frozen(name) {
        Some(text) if text == expected => return None,
        Some(_) => "differs from what the code gives",
        None => "is missing",
    };
    Some(format!("vectors/{name}.txt (rules {rules}) {fault}; the code gives:\n--8<-- {name}\n{expected}-->8--\n"))
}

pub(crate) fn check_text(name: &str, what: &str, rules: &str, lines: &[String]) {
    if let Some(difference) = difference(name, what, rules, lines) {
        panic!("{difference}");
    }
}
