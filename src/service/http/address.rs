//! Address of an HTTP server: `HOST:PORT` with a name or an IP address, or `:PORT`.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::str::FromStr;

/// `HOST:PORT`; without a host, all of this machine's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// A name or an IP address, IPv6 without brackets.
    host: Option<String>,
    port: u16,
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<HttpAddress, String> {
        let wrong = || "expected HOST:PORT or :PORT, such as localhost:8080".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').ok_or_else(wrong)?,
            // In an IPv6 address without brackets the port is ambiguous.
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '[' | ']' | '@')) {
            return Err(wrong());
        }
        Ok(HttpAddress { host: (!host.is_empty()).then(|| host.to_owned()), port })
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
            None => write!(f, ":{}", self.port),
        }
    }
}

impl HttpAddress {
    /// Listens at this address.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        match &self.host {
            Some(host) => TcpListener::bind((host.as_str(), self.port)),
            // IPv6's wildcard takes IPv4 too; without IPv6, IPv4 alone.
            None => TcpListener::bind(("::", self.port))
                .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port))),
        }
    }

    /// The same host, at any port that is free.
    #[must_use]
    pub fn at_any_port(&self) -> HttpAddress {
        HttpAddress { host: self.host.clone(), port: 0 }
    }

    /// Returns where a client on this machine reaches the server.
    ///
    /// # Errors
    /// When the name is unknown.
    pub fn to_ask(&self) -> io::Result<Vec<SocketAddr>> {
        let host =
            self.host.as_deref().filter(|host| !matches!(*host, "::" | "0.0.0.0")).unwrap_or("localhost");
        (host, self.port).to_socket_addrs().map(Iterator::collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_bare_ports_are_taken() {
        for text in ["localhost:8080", "127.0.0.1:0", "[::1]:80", ":9090", "my-host.example:65535"] {
            let address: HttpAddress = text.parse().expect("an address");
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "8080",
            "localhost",
            "localhost:",
            "localhost:http",
            "a:65536",
            "::1:80",
            "[::1:80",
            "http://a:80",
            "a b:80",
        ] {
            let said = text.parse::<HttpAddress>().expect_err(text);
            assert!(said.contains("HOST:PORT"), "{said}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for host in ["", "0.0.0.0", "localhost"] {
            let of = |port: u16| HttpAddress { host: (!host.is_empty()).then(|| host.to_owned()), port };
            let listener = of(0).listen().expect("a free port");
            let address = of(listener.local_addr().expect("bound").port());
            let asked = address.to_ask().expect("known");
            assert!(
                asked.iter().any(|address| std::net::TcpStream::connect(address).is_ok()),
                "{address}: {asked:?}"
            );
        }
    }
}
