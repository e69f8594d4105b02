//! One test for each verdict that nextest can reach.
//!
//! Profile `default`: 3 passed (1 of them slow), 3 failed, 1 skipped.
//! Profile `ci`: 4 passed (1 slow, 1 flaky: it passes at its second try), 2 failed, 1 skipped.

#[cfg(test)]
mod tests {
    use std::env;
    use std::thread::sleep;
    use std::time::Duration;

    /// Bytes that `output_heavy` writes to each stream.
    const HEAVY: usize = 200_000;
    /// Bytes in one of its lines, with the line feed.
    const LINE: usize = 80;

    #[test]
    fn passing() {
        println!("this is the output of a test that passed");
    }

    #[test]
    fn failing() {
        println!("a line on stdout");
        eprintln!("a line on stderr");
        assert_eq!(2 + 2, 5, "arithmetic holds");
    }

    #[test]
    #[ignore = "shows what an ignored test looks like"]
    fn ignored() {}

    /// Passes after the `slow-timeout` period of every profile, and before any of them ends it.
    #[test]
    fn slow() {
        sleep(Duration::from_millis(1500));
    }

    /// Fails at the first try and passes at every later one.
    #[test]
    fn flaky() {
        let attempt = env::var("NEXTEST_ATTEMPT").expect("nextest sets NEXTEST_ATTEMPT");
        assert_ne!(attempt, "1", "the first try fails");
    }

    /// The panic is not in the test's own thread.
    #[test]
    fn panicking() {
        let thread = std::thread::spawn(|| panic!("a thread panicked: <&\"'> \u{1b}[31mred\u{1b}[0m ünïcödé"));
        thread.join().expect("the thread ends well");
    }

    #[test]
    fn output_heavy() {
        let line = "x".repeat(LINE - 1);
        for _ in 0..HEAVY / LINE {
            println!("{line}");
            eprintln!("{line}");
        }
    }
}
