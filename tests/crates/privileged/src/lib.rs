//! Tests that need root in a kernel of their own; they change it, so they fail everywhere but in a virtual machine.

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::path::Path;
    use std::process::Command;
    use std::{env, fs};

    /// Where the guest sees what the host handed in.
    const IN_SHARE: &str = "/run/vmrunner/in";

    fn first_line(path: &str) -> String {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Whether `directory` is a mount of type `kind` (`proc_pid_mounts(5)`).
    fn is_mount(directory: &str, kind: &str) -> bool {
        let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
        let is_it = |line: &str| {
            let fields: Vec<_> = line.split(' ').collect();
            fields.get(1) == Some(&directory) && fields.get(2) == Some(&kind)
        };
        mounts.lines().any(is_it)
    }

    /// Only a guest of vmrunner is safe to change.
    fn assert_in_guest() {
        assert!(is_mount(IN_SHARE, "9p"), "{IN_SHARE} is not a 9p mount: this is no guest of vmrunner");
    }

    fn run(program: &str, arguments: &[&str]) -> String {
        let output =
            Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {}: {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn runs_in_the_guest() {
        assert_in_guest();
        assert_eq!(env::var("VMRUNNER").as_deref(), Ok("1"));
        assert_eq!(first_line("/proc/1/comm"), "systemd");
    }

    #[test]
    fn user_is_root() {
        let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let identities = status.lines().find(|line| line.starts_with("Uid:")).expect("there is a Uid line");
        assert!(identities.split_whitespace().skip(1).all(|identity| identity == "0"), "{identities}");
    }

    #[test]
    fn network_namespace() {
        assert_in_guest();
        run("ip", &["netns", "add", "vmrunner-test"]);
        let links = run("ip", &["-n", "vmrunner-test", "-brief", "link"]);
        run("ip", &["netns", "delete", "vmrunner-test"]);
        assert!(links.starts_with("lo "), "a new namespace has the loopback link: {links:?}");
    }

    #[test]
    fn mounted_tmpfs() {
        assert_in_guest();
        let directory = env::temp_dir().join(format!("privileged-tmpfs-{}", std::process::id()));
        let name = directory.to_str().expect("the path is text");
        fs::create_dir(&directory).expect("the temporary directory is writable");
        run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", name]);
        let mounted = is_mount(name, "tmpfs");
        run("umount", &[name]);
        fs::remove_dir(&directory).expect("it is empty again");
        assert!(mounted, "{name} is a tmpfs");
    }

    #[test]
    fn loaded_module() {
        assert_in_guest();
        run("modprobe", &["dummy"]);
        let modules = fs::read_to_string("/proc/modules").expect("the kernel has modules");
        assert!(modules.lines().any(|line| line.starts_with("dummy ")), "{modules}");
        assert!(Path::new("/sys/module/dummy").is_dir());
    }

    #[test]
    fn port_53() {
        assert_in_guest();
        let _udp = UdpSocket::bind("127.0.0.1:53").expect("UDP port 53 is free and allowed");
        let _tcp = TcpListener::bind("127.0.0.1:53").expect("TCP port 53 is free and allowed");
    }

    #[test]
    fn host_name() {
        assert_in_guest();
        let before = first_line("/proc/sys/kernel/hostname");
        fs::write("/proc/sys/kernel/hostname", "privileged-test").expect("root may set the host name");
        let changed = first_line("/proc/sys/kernel/hostname");
        fs::write("/proc/sys/kernel/hostname", &before).expect("root may set it back");
        assert_eq!(changed, "privileged-test");
    }

    #[test]
    fn kernel_setting() {
        assert_in_guest();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("root may forward packets");
        assert_eq!(first_line("/proc/sys/net/ipv4/ip_forward"), "1");
    }
}
