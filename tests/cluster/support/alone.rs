//! Tests that measure what their process takes, each in a process of its own: others would be measured with it.

use std::process::Command;

/// Set in a process that was started for one test.
const MARK: &str = "STOCKMESH_TEST_ALONE";

/// Whether this test has the process for itself. If not, it was run in another process before this returns: the caller
/// has nothing left to do.
///
/// # Panics
/// If the test failed there.
pub(crate) fn is_alone(name: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(MARK, "1").output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    print!("{told}");
    assert!(output.status.success(), "the test failed in its own process, see above");
    assert!(told.contains("1 passed"), "there is no test of the name {name}");
    false
}

/// The path of the test that this stands in, as the command line takes it.
macro_rules! alone {
    ($name:ident) => {{
        let path = concat!(module_path!(), "::", stringify!($name));
        let (_, path) = path.split_once("::").unwrap();
        if !$crate::support::alone::is_alone(path) {
            return;
        }
    }};
}
pub(crate) use alone;
