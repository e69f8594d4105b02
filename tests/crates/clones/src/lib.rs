//! Tells what a machine must not share with another one that was restored from the same template; whoever runs several
//! at the same time compares what they print, one `name=value` a line.

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::path::Path;
    use std::process::Command;
    use std::thread::sleep;
    use std::time::{Duration, Instant, SystemTime};

    /// On the root disk, outside all that a run has of its own.
    const MARKER: &str = "/var/clones-marker";
    /// What the host's loopback interface is to a guest with QEMU's user network.
    const HOST: &str = "10.0.2.2";

    fn text_of(path: &str) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
    }

    fn random_bytes() -> String {
        let mut bytes = [0; 16];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("it never ends");
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn identity() {
        println!("urandom={}", random_bytes());
        println!("uuid={}", text_of("/proc/sys/kernel/random/uuid"));
        println!("machine-id={}", text_of("/etc/machine-id"));
        println!("hostname={}", text_of("/proc/sys/kernel/hostname"));
    }

    /// The name that the kernel has is also one that resolves.
    #[test]
    fn hostname_resolves() {
        let name = text_of("/proc/sys/kernel/hostname");
        let output = Command::new("getent").args(["hosts", &name]).output().expect("getent is there");
        assert!(output.status.success(), "{name} does not resolve");
    }

    /// Nobody else writes to this machine's disk, and nobody has before.
    #[test]
    fn disk_is_its_own() {
        let mine = random_bytes();
        assert!(!Path::new(MARKER).try_exists().expect("its directory can be read"), "{MARKER} is there already");
        let mut file = File::create(MARKER).expect("it can be made");
        file.write_all(mine.as_bytes()).and_then(|()| file.sync_all()).expect("it can be written");
        sleep(Duration::from_secs(2));
        assert_eq!(text_of(MARKER), mine);
        println!("marker={mine}");
    }

    /// Answers each line that comes from the host with the time.
    #[test]
    #[ignore = "needs CLOCK_PORT, a port of the host"]
    fn clock() {
        let port = env::var("CLOCK_PORT").expect("it is set");
        let began = Instant::now();
        let mut host = TcpStream::connect(format!("{HOST}:{port}")).expect("the host listens");
        println!("connected={}", began.elapsed().as_secs_f64());
        host.set_nodelay(true).expect("it can be set");
        let questions = BufReader::new(host.try_clone().expect("it can be shared"));
        for _ in questions.lines() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
            writeln!(host, "{}.{:09}", now.as_secs(), now.subsec_nanos()).expect("the host reads");
        }
    }
}
