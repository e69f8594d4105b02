//! Tests that attack the machine they run in, or what a host reads from it afterwards.
//!
//! All are ignored unless asked for by name. Each first makes sure that it is in a guest of vmrunner, and fails
//! without doing anything where it is not.

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::os::unix::process::parent_id;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::thread::sleep;
    use std::time::Duration;
    use std::{env, hint};

    const IN_SHARE: &str = "/run/vmrunner/in";
    const OUT_SHARE: &str = "/run/vmrunner/out";
    /// What a careless host would read instead of a report.
    const VICTIM: &str = "/etc/passwd";
    const MEBIBYTE: usize = 1 << 20;
    const PAGE: usize = 4096;
    /// How long the guest goes on after an attack on its connection.
    const AFTERMATH: Duration = Duration::from_secs(3);

    const SIGKILL: i32 = 9;
    const ENOSPC: i32 = 28;
    const EROFS: i32 = 30;

    extern "C" {
        /// kill(2); std has no safe way to signal a process that is not a child.
        fn kill(pid: i32, signal: i32) -> i32;
    }

    /// Panics everywhere but in a guest: no other machine has a 9p share mounted at this place.
    fn assert_in_guest() {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let is_guest = mounts.lines().any(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            fields.get(1) == Some(&IN_SHARE) && fields.get(2) == Some(&"9p")
        });
        assert!(is_guest, "{IN_SHARE} is not a 9p mount: this is no guest of vmrunner, nothing was done");
    }

    fn run(program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).status();
        println!("{program} {arguments:?}: {status:?}");
    }

    fn sleep_for_ever() -> ! {
        loop {
            sleep(Duration::from_secs(3600));
        }
    }

    fn kill_process(pid: i32) {
        assert!(pid > 1, "{pid} is not a process to kill");
        // SAFETY: kill(2) has no memory effects; pid is above 1, so it names one process and not a group.
        let result = unsafe { kill(pid, SIGKILL) };
        println!("kill {pid}: {result}");
    }

    fn magic_sysrq(command: &str) -> ! {
        fs::write("/proc/sys/kernel/sysrq", "1").expect("root may enable sysrq");
        fs::write("/proc/sysrq-trigger", command).expect("root may use sysrq");
        sleep_for_ever()
    }

    #[test]
    #[ignore = "panics the kernel"]
    fn kernel_panic() {
        assert_in_guest();
        magic_sysrq("c");
    }

    #[test]
    #[ignore = "reboots without telling anybody"]
    fn reboot_at_once() {
        assert_in_guest();
        magic_sysrq("b");
    }

    #[test]
    #[ignore = "reboots"]
    fn reboot() {
        assert_in_guest();
        run("reboot", &["-f"]);
        sleep_for_ever();
    }

    #[test]
    #[ignore = "shuts down"]
    fn poweroff() {
        assert_in_guest();
        run("systemctl", &["poweroff"]);
        sleep_for_ever();
    }

    /// Passes, and leaves the disk full.
    #[test]
    #[ignore = "fills the disk"]
    fn fill_disk() {
        assert_in_guest();
        let mut file = File::create("/hostile-fill").expect("root may write to /");
        let block = vec![b'x'; MEBIBYTE];
        let error = loop {
            if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
                break error;
            }
        };
        assert_eq!(error.raw_os_error(), Some(ENOSPC), "{error}");
    }

    #[test]
    #[ignore = "takes all memory"]
    fn eat_memory() {
        assert_in_guest();
        let mut blocks = Vec::new();
        loop {
            let mut block = vec![0_u8; MEBIBYTE];
            // A page that was never written to is not there.
            block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            blocks.push(hint::black_box(block));
        }
    }

    #[test]
    #[ignore = "never ends"]
    fn hang() {
        assert_in_guest();
        sleep_for_ever();
    }

    #[test]
    #[ignore = "kills its runner"]
    fn kill_nextest() {
        assert_in_guest();
        kill_process(i32::try_from(parent_id()).expect("a process number is an i32"));
        sleep_for_ever();
    }

    /// The number and the parent of every process of the SSH server.
    fn ssh_processes() -> Vec<(i32, i32)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned()).unwrap_or_default()
            };
            if field("Name:") == "dropbear" {
                if let (Ok(pid), Ok(parent)) = (field("Pid:").parse(), field("PPid:").parse()) {
                    found.push((pid, parent));
                }
            }
        }
        found
    }

    /// Passes: only the connections are gone, new ones can be made.
    #[test]
    #[ignore = "cuts all connections"]
    fn kill_ssh_sessions() {
        assert_in_guest();
        for (pid, _) in ssh_processes().into_iter().filter(|(_, parent)| *parent != 1) {
            kill_process(pid);
        }
        sleep(AFTERMATH);
    }

    /// Ends well for nextest, but nobody can ask how.
    #[test]
    #[ignore = "cuts all connections for good"]
    fn stop_sshd() {
        assert_in_guest();
        run("systemctl", &["mask", "--now", "--runtime", "vmrunner-ssh.service"]);
        for (pid, _) in ssh_processes() {
            kill_process(pid);
        }
        sleep(AFTERMATH);
    }

    /// Passes: the share stays read-only whatever the guest's root does.
    #[test]
    #[ignore = "attacks the share with the host's files"]
    fn write_to_in_share() {
        assert_in_guest();
        run("mount", &["-o", "remount,rw", IN_SHARE]);
        let error = fs::write(Path::new(IN_SHARE).join("hostile"), "").expect_err("the host refuses");
        assert_eq!(error.raw_os_error(), Some(EROFS), "{error}");
    }

    /// The directory of this profile in nextest's store on the out share; nextest makes it before it starts tests.
    fn report_directory() -> PathBuf {
        let profile = env::var_os("NEXTEST_PROFILE").expect("nextest names the profile");
        let mut waiting = vec![PathBuf::from(OUT_SHARE)];
        while let Some(directory) = waiting.pop() {
            for path in fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() && !path.is_symlink() {
                    if path.file_name() == Some(&profile) {
                        return path;
                    }
                    waiting.push(path);
                }
            }
        }
        panic!("there is no directory for profile {profile:?} below {OUT_SHARE}");
    }

    /// nextest then writes its report through the link, over the guest's own file, and the link stays.
    #[test]
    #[ignore = "puts a link where the report goes"]
    fn junit_link() {
        assert_in_guest();
        let report = report_directory().join("junit.xml");
        let _ = fs::remove_file(&report);
        symlink(VICTIM, &report).unwrap_or_else(|error| panic!("{}: {error}", report.display()));
    }

    #[test]
    #[ignore = "puts a link where the report's directory is"]
    fn junit_directory_link() {
        assert_in_guest();
        let directory = report_directory();
        fs::rename(&directory, directory.with_extension("moved")).expect("root may rename in the share");
        symlink("/etc", &directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    }

    /// Do `action` in the report's directory when nextest has ended, again and again for a minute, as a unit of its own.
    fn after_nextest(action: &str) {
        let script = format!(
            "cd '{}' || exit; while kill -0 {}; do sleep 0.05; done; \
             for _ in $(seq 600); do {action}; sleep 0.1; done",
            report_directory().display(),
            parent_id()
        );
        let status =
            Command::new("systemd-run").args(["--no-block", "sh", "-c", &script]).status().expect("systemd-run starts");
        assert!(status.success(), "systemd-run: {status}");
    }

    #[test]
    #[ignore = "replaces the report by a link"]
    fn junit_link_afterwards() {
        assert_in_guest();
        after_nextest("ln -sfn /etc/passwd junit.xml");
    }

    #[test]
    #[ignore = "replaces the report by a FIFO"]
    fn junit_fifo_afterwards() {
        assert_in_guest();
        after_nextest("rm -f junit.xml; mkfifo junit.xml");
    }

    #[test]
    #[ignore = "replaces the report by a flood"]
    fn junit_flood_afterwards() {
        assert_in_guest();
        after_nextest("truncate -s 1T junit.xml");
    }
}
