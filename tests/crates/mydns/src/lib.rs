//! Resolves host names the way every program on the machine does.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// All addresses of `host`, each once, in the order in which the resolver gives them.
///
/// # Errors
///
/// The resolver's own error where it does not know the name.
pub fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for socket_address in (host, 0).to_socket_addrs()? {
        let address = socket_address.ip();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}
