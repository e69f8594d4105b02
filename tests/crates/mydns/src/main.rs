//! Prints the addresses of each host name it is given.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut exit_code = ExitCode::SUCCESS;
    for host in std::env::args().skip(1) {
        match mydns::resolve(&host) {
            Ok(addresses) => addresses.iter().for_each(|address| println!("{host} {address}")),
            Err(error) => {
                eprintln!("{host}: {error}");
                exit_code = ExitCode::FAILURE;
            }
        }
    }
    exit_code
}

#[cfg(test)]
mod mydns_tests {
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn local_ip() {
        let addresses = mydns::resolve("localhost").expect("localhost resolves everywhere");
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }

    /// Passes only where the name is known: with DNS, or with an entry in /etc/hosts.
    #[test]
    fn ip_for_nip_io() {
        let addresses = mydns::resolve("52-0-56-137.nip.io").expect("52-0-56-137.nip.io resolves");
        assert_eq!(addresses, [IpAddr::V4(Ipv4Addr::new(52, 0, 56, 137))]);
    }
}
