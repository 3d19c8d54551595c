//! An MQTT client: rumqttc, plus what it leaves to us.
//!
//! * The broker keeps sessions across our restarts. rumqttc asks for the client's part of a session. There is none (a
//!   client that only receives QoS 1 has no state, and a generator's state is in its connection), so `Stateless`
//!   returns an empty one.
//! * Closing a socket with unread data loses what was sent last: the kernel answers with a reset. rumqttc closes right
//!   after its DISCONNECT, and the packets before it are acknowledgements; so [`Socket`] is read to its end first.

use std::io::Read as _;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumqttc::{
    AckMode, AsyncClient, EventLoop, MqttOptions, PersistedAckMode, PersistedSession, SessionStore,
    SessionStoreError, SessionStoreKey,
};

/// Makes a client and its event loop, with room for `requests` requests.
///
/// # Errors
/// When the options contradict each other.
pub fn new(mut options: MqttOptions, requests: usize) -> std::io::Result<(AsyncClient, EventLoop)> {
    let nothing = Stateless(PersistedSession {
        format_version: 1,
        client_id: options.client_id(),
        clean_start: options.clean_start(),
        session_expiry_interval: options.session_expiry_interval(),
        outgoing_inflight_upper_limit: options.get_outgoing_inflight_upper_limit(),
        ack_mode: match options.ack_mode() {
            AckMode::Automatic => PersistedAckMode::Automatic,
            AckMode::Manual => PersistedAckMode::Manual,
        },
        last_pkid: 0,
        last_puback: 0,
        replay: Vec::new(),
        incoming_qos2: Vec::new(),
    });
    options.set_session_store(nothing);
    AsyncClient::builder(options).capacity(requests).try_build().map_err(std::io::Error::other)
}

/// The session of a client that has nothing to remember.
#[derive(Debug)]
struct Stateless(PersistedSession);

type StoreFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for Stateless {
    fn load<'a>(&'a self, _: &'a SessionStoreKey) -> StoreFuture<'a, Option<PersistedSession>> {
        Box::pin(std::future::ready(Ok(Some(self.0.clone()))))
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> StoreFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> StoreFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The socket of a client's last connection.
#[derive(Clone, Debug, Default)]
pub struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    /// Returns the socket of the client that will be made of these options.
    #[must_use]
    pub fn of(options: &mut MqttOptions) -> Socket {
        let socket = Socket::default();
        let last = socket.clone();
        options.set_socket_connector(move |address, network| {
            let last = last.clone();
            async move {
                let stream = rumqttc::default_socket_connect(address, network).await?;
                let twin = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
                *last.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(twin);
                Ok(stream)
            }
        });
        socket
    }

    /// Reads until the broker closes the socket too, or until `patience` has passed. For after the client's DISCONNECT,
    /// when nothing polls it any more.
    pub fn read_to_end(&self, patience: Duration) {
        let Some(mut stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let deadline = Instant::now() + patience;
        let mut unread = [0; 16 << 10];
        // A socket that fails here is already closed.
        let waits = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(patience)));
        while waits.is_ok()
            && Instant::now() < deadline
            && stream.read(&mut unread).is_ok_and(|read| read > 0)
        {}
    }
}
