//! A test that does what the script given to it says, so that one archive serves many tests of the machine around it.

/// What the host's tests change, to see whether a build is the new one.
pub const EDITION: &str = "first edition";

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    /// Passes where the shell script in `SCRIPT` does; it starts in the workspace.
    #[test]
    fn script() {
        assert!(env::var_os("VMRUNNER").is_some(), "this is no guest of vmrunner, nothing was done");
        let script = env::var("SCRIPT").expect("it is set");
        let status = Command::new("sh").args(["-euc", &script]).status().expect("sh starts");
        assert!(status.success(), "{status}");
    }

    #[test]
    fn edition() {
        println!("compiled: {}", super::EDITION);
        println!("on disk: {}", std::fs::read_to_string("src/lib.rs").expect("the sources are there").lines().nth(3).unwrap_or_default());
    }
}
