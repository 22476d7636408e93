//! Other programs.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a program. The error says what it was, and what it said.
pub(crate) fn attempt(line: &str) -> Result<String, String> {
    attempt_with(line, "")
}

/// The same with something to read.
pub(crate) fn attempt_with(line: &str, input: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let run = || -> std::io::Result<Output> {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // One that reads nothing may have ended before.
        drop(child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    };
    let output = run().map_err(|error| format!("`{line}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

pub(crate) fn run(line: &str) -> String {
    attempt(line).unwrap_or_else(|error| panic!("{error}"))
}

/// Says what is missing, past the harness, which keeps what a test prints if it passes.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = std::io::stderr().lock().write_all(format!("\nSKIPPED {test}: {why}\n").as_bytes());
}
