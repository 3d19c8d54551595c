//! A topic whose leaders a client knows, and goes on knowing.
//!
//! A client learns them when it first needs them, by a scan that runs once a second (librdkafka 2.12.1,
//! `rd_kafka_1s_tmr_cb`), and forgets them some time after nobody needs them any more.

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;

use super::handle::Handle;
use super::{Owned, refresh_metadata};

/// The client's topic. It holds the client: librdkafka wants its topics destroyed before it.
#[derive(Debug)]
pub(super) struct KnownTopic {
    topic: Owned<sys::rd_kafka_topic_t>,
    handle: Arc<Handle>,
}

impl KnownTopic {
    /// `None` if the topic's name can't be one.
    pub(super) fn of(handle: &Arc<Handle>) -> Option<KnownTopic> {
        let name = CString::new(handle.topic.as_str()).ok()?;
        // SAFETY: the client is alive; the topic is ours to destroy. NULL means the client's own topic properties.
        let topic =
            unsafe { sys::rd_kafka_topic_new(handle.client.as_ptr(), name.as_ptr(), ptr::null_mut()) };
        let topic = Owned(topic, sys::rd_kafka_topic_destroy);
        (!topic.0.is_null()).then(|| KnownTopic { topic, handle: Arc::clone(handle) })
    }

    /// Asks any broker for its metadata, and waits until the client has it; for so long at most.
    pub(super) fn refresh(&self, patience: Duration) {
        // SAFETY: client and topic are alive.
        unsafe { refresh_metadata(self.handle.client.as_ptr(), self.topic.0, patience) };
    }
}
