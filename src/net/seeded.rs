//! What a simulation sets of TLS and QUIC: what would be random follows from its seed. Keys do not, since no byte of a key
//! decides what happens.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::{ClientConfig, ConnectionId, ServerConfig, TimeSource};
use rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom};

use crate::chance::random;
use crate::simulation::{is_running, wall_ms};

/// Greetings. Their first bytes decide how the first byte of an encrypted packet looks. If one comes when its connection is
/// long over, it is read with the keys of a new one: it then makes sense, and is answered, one time in four.
pub(super) fn provider(mut provider: CryptoProvider) -> CryptoProvider {
    if is_running() {
        provider.secure_random = &Greetings;
    }
    provider
}

#[derive(Debug)]
struct Greetings;

impl SecureRandom for Greetings {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        bytes.fill_with(random);
        Ok(())
    }
}

/// Tokens. A connection that is closed already reads the token of a late Retry as if it were frames, and may take some of
/// its bytes for one that ends it. So the bytes of tokens matter, and with them the key and the time.
pub(super) fn listening(config: &mut ServerConfig) {
    if is_running() {
        let key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&random::<[u8; 32]>());
        config.token_key(Arc::new(key)).time_source(Arc::new(TimeOfTokens));
    }
}

/// The right time of the run.
struct TimeOfTokens;

impl TimeSource for TimeOfTokens {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(wall_ms(0).unwrap_or_default())
    }
}

/// The id that a client makes up for who it dials, from which the keys of first packets follow.
pub(super) fn dialling(config: &mut ClientConfig) {
    if is_running() {
        config.initial_dst_cid_provider(Arc::new(|| ConnectionId::new(&random::<[u8; 20]>())));
    }
}
