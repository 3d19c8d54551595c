//! How to reach the MQTT broker, and what its refusals mean.
//!
//! MQTT 5, by rumqttc: its receive maximum bounds the messages in flight (in 3.1.1 the broker alone decides), and its
//! reason codes say why something is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rumqttc::{
    ConnectReturnCode, ConnectionError, DisconnectReasonCode, MqttOptions, StateError, TlsConfiguration,
    TlsError, Transport,
};

use super::tls;

/// A broker that is silent for longer counts as dead.
const KEEP_ALIVE_SECONDS: u16 = 10;
/// A reading has at most 1 MiB. Larger messages are forwarded too, as dead letters, up to what Kafka takes (16 MiB in
/// our own topics). The broker silently discards what is larger than this limit (MQTT 5.0, 3.1.2.11.4); so it exceeds
/// Kafka's, and the bridge can report what Kafka refuses.
const MAX_PACKET_BYTES: u32 = 64 << 20;

/// The address of the MQTT broker: `mqtt://host:1883`, or `mqtts://host:8883` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address; IPv6 without brackets, as in certificates.
    host: String,
    port: u16,
    tls: bool,
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // First, so that no other error repeats a password.
        if text.contains('@') {
            return Err("expected mqtt://HOST:PORT; user and password have options of their own".to_owned());
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("mqtt", text));
        let (tls, usual_port) = match scheme {
            "mqtt" | "tcp" => (false, 1883),
            "mqtts" | "ssl" => (true, 8883),
            other => return Err(format!("'{other}' is neither mqtt nor mqtts")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err("expected mqtt://HOST:PORT".to_owned());
        }
        // An IPv6 address has its colons in brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("'{port}' is not a port"))?)
            }
            _ => (rest, usual_port),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("expected mqtt://HOST:PORT".to_owned());
        }
        Ok(Address { host: host.to_owned(), port, tls })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, port) = (if self.tls { "mqtts" } else { "mqtt" }, self.port);
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{port}", self.host),
            false => write!(f, "{scheme}://{}:{port}", self.host),
        }
    }
}

/// The broker's address and our credentials.
#[derive(Clone)]
pub struct Broker {
    address: Address,
    login: Option<(String, String)>,
    tls: Option<TlsConfiguration>,
}

/// The client's credentials, and the certificates it trusts.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerAccess<'a> {
    /// `--mqtt-user`
    pub user: Option<&'a str>,
    /// `--mqtt-password-file`
    pub password_file: Option<&'a Path>,
    /// `--mqtt-ca-file`
    pub ca_file: Option<&'a Path>,
    /// `--mqtt-cert-file`
    pub cert_file: Option<&'a Path>,
    /// `--mqtt-key-file`
    pub key_file: Option<&'a Path>,
}

/// Why the options for the broker were refused.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A file can't be read.
    #[error("{option} {}", path.display())]
    File {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// A file with invalid content.
    #[error("{option} {}: {reason}", path.display())]
    Content {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no trusted certificates.
    #[error("this system has no certificates to trust ({0}); name some by --mqtt-ca-file")]
    NoCertificates(String),
    /// Certificates without TLS.
    #[error("{option} is for mqtts://; {address} is without TLS")]
    WithoutTls {
        /// The option.
        option: &'static str,
        /// `--mqtt`
        address: Address,
    },
    /// A certificate without its key, or the reverse.
    #[error("--mqtt-cert-file and --mqtt-key-file go together (they may be one file)")]
    HalfACertificate,
}

impl Broker {
    /// Reads the password and the certificates.
    ///
    /// # Errors
    /// When a file can't be read or is invalid.
    pub fn new(address: Address, access: BrokerAccess<'_>) -> Result<Broker, BrokerError> {
        let login = access
            .user
            .map(|user| Ok((user.to_owned(), access.password_file.map_or(Ok(String::new()), password)?)));
        let files = [("--mqtt-ca-file", access.ca_file), ("--mqtt-cert-file", access.cert_file)];
        let given = files.into_iter().find(|(_, file)| file.is_some());
        let tls = match (address.tls, given) {
            (false, Some((option, _))) => return Err(BrokerError::WithoutTls { option, address }),
            (false, None) => None,
            (true, _) => Some(tls::configuration(access)?),
        };
        Ok(Broker { login: login.transpose()?, tls, address })
    }

    /// The address, for messages.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the options of a client whose session survives its connection for `session`.
    #[must_use]
    pub fn options(&self, client_id: &str, session: Duration) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, (self.address.host.as_str(), self.address.port));
        options
            .set_clean_start(false)
            .set_keep_alive(KEEP_ALIVE_SECONDS)
            .set_session_expiry_interval(Some(u32::try_from(session.as_secs()).unwrap_or(u32::MAX)))
            .set_max_packet_size(Some(MAX_PACKET_BYTES));
        if let Some((user, password)) = &self.login {
            options.set_credentials(user.clone(), password.clone());
        }
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::tls_with_config(tls.clone()));
        }
        options
    }
}

pub(super) fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, BrokerError> {
    std::fs::read(path).map_err(|error| BrokerError::File { option, path: path.to_owned(), error })
}

fn password(path: &Path) -> Result<String, BrokerError> {
    let option = "--mqtt-password-file";
    let content = |_| BrokerError::Content { option, path: path.to_owned(), reason: "not UTF-8".to_owned() };
    let text = String::from_utf8(read(option, path)?).map_err(content)?;
    // Editors end a file with a line break.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Describes a permanent refusal; `None` for an error that may pass.
#[must_use]
pub fn refusal(error: &ConnectionError) -> Option<String> {
    use ConnectReturnCode as Code;
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            Code::BadUserNamePassword | Code::NotAuthorized => {
                Some("authentication failed: look at --mqtt-user and --mqtt-password-file".to_owned())
            }
            Code::ServiceUnavailable
            | Code::ServerUnavailable
            | Code::ServerBusy
            | Code::ConnectionRateExceeded
            | Code::QuotaExceeded => None,
            Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => {
                Some("it doesn't speak MQTT 5".to_owned())
            }
            other => Some(format!("the connection was refused: {other:?}")),
        },
        error if is_taken_over(error) => {
            Some("another client has taken the session over: each needs a --client-id of its own".to_owned())
        }
        other => match io_error(other) {
            // The broker reports this by a TLS alert, after its own certificate was accepted.
            Some(error) if wants_a_certificate(error) => Some(format!(
                "it asks for a client certificate that it trusts ({error}): look at --mqtt-cert-file"
            )),
            // rustls reports a TLS failure as an I/O error.
            Some(error) if error.kind() == std::io::ErrorKind::InvalidData => Some(format!(
                "TLS failed ({error}): look at --mqtt-ca-file, and at whether the port speaks TLS"
            )),
            _ => None,
        },
    }
}

/// Whether another client uses our client id: the two would take the session from each other endlessly.
#[must_use]
pub fn is_taken_over(error: &ConnectionError) -> bool {
    let ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) = error else {
        return false;
    };
    *reason_code == DisconnectReasonCode::SessionTakenOver
}

fn wants_a_certificate(error: &std::io::Error) -> bool {
    let alert = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Some(rustls::Error::AlertReceived(
            Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
        ))
    )
}

fn io_error(error: &ConnectionError) -> Option<&std::io::Error> {
    match error {
        ConnectionError::Io(error)
        | ConnectionError::Tls(TlsError::Io(error))
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(rumqttc::Error::Io(error)),
        ) => Some(error),
        _ => None,
    }
}

/// Returns rumqttc's message without its wrappers.
#[must_use]
pub fn describe(error: &ConnectionError) -> String {
    match (io_error(error), error) {
        (Some(error), _) => error.to_string(),
        (None, ConnectionError::ConnectionRefused(code)) => format!("refused: {code:?}"),
        (None, ConnectionError::Timeout(_)) => "no answer in time".to_owned(),
        (None, ConnectionError::MqttState(state)) => state.to_string(),
        (None, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, String> {
        text.parse::<Address>().map(|address| address.to_string())
    }

    #[test]
    fn an_address_has_the_usual_ports() {
        assert_eq!(address("mqtt://broker"), Ok("mqtt://broker:1883".to_owned()));
        assert_eq!(address("mqtts://broker/"), Ok("mqtts://broker:8883".to_owned()));
        assert_eq!(address("tcp://broker:7"), Ok("mqtt://broker:7".to_owned()));
        assert_eq!(address("broker:7"), Ok("mqtt://broker:7".to_owned()));
        assert_eq!(address("mqtt://[::1]"), Ok("mqtt://[::1]:1883".to_owned()));
        assert_eq!(address("mqtt://[::1]:7"), Ok("mqtt://[::1]:7".to_owned()));
        assert_eq!("mqtts://[::1]".parse::<Address>().expect("valid").host, "::1", "as certificates have it");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "http://broker",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://broker:x",
            "mqtt://me:secret@broker",
            "mqtt://a/b",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        assert!(!address("mqtt://me:hunter2@broker").expect_err("refused").contains("hunter2"));
    }

    #[test]
    fn a_password_may_end_with_a_line_break() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "hunter2\r\n").expect("written");
        assert_eq!(password(file.path()).expect("read"), "hunter2");
    }
}
