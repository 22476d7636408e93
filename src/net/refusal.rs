//! Why a link ended or never came up, in words that an operator can act on.

use quinn::{ApplicationClose, ConnectionError, VarInt};

/// Codes with which a link is closed (`PROTOCOL.md`, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The node closes.
    Closing = 0,
    /// The hello was refused.
    Refused = 1,
    /// The peer broke a rule.
    Violation = 2,
    /// Another link to the same node is kept.
    Duplicate = 3,
    /// The node goes offline.
    Offline = 4,
    /// The node has a new replica id, and links anew.
    NewIncarnation = 5,
    /// Another node is linked under the same replica id.
    IdTaken = 6,
    /// The node has a new certificate, and links anew.
    NewCertificate = 7,
    /// The node does not trust the peer's certificate any more.
    NotTrusted = 8,
    /// The peer sent more than this node takes, for too long.
    TooMuch = 9,
    /// The peer's replica was retired.
    Retired = 10,
    /// The node leaves for good.
    Left = 11,
    /// The node has links enough, and the peer others (rule T4).
    Surplus = 12,
}

/// Tells the peer why a link under a former replica id ends.
pub(super) const NEW_INCARNATION: &str = "the node has a new replica id and links anew";

/// Tells the peer why a link under a former certificate ends.
pub(super) const NEW_CERTIFICATE: &str = "the node has a new certificate and links anew";

impl CloseCode {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// Whether the link was closed with this code by the peer.
pub(super) fn closed_with(error: &ConnectionError, code: CloseCode) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == code.code())
}

/// What TLS alerts mean for the operator (RFC 8446, section 6.2).
fn explain_alert(alert: u8) -> Option<&'static str> {
    Some(match alert {
        40 => {
            "the TLS handshake failed: both sides need TLS 1.3, and either both certificates of the cluster's authority or \
             both raw public keys"
        }
        42 | 43 | 46 | 51 => "the certificate is not valid: it must be issued by the cluster's authority",
        44 => "the certificate was revoked",
        49 => "the public key is not on the list of those that are trusted: both nodes need each other's",
        45 => "the certificate is expired: issue a new one, and check the clocks",
        48 => "the certificate is of another authority: both nodes need certificates of the same authority",
        116 => "no certificate was presented: every node needs one of the cluster's authority",
        120 => "no common protocol: the peer does not speak stockmesh/1; update the older node",
        _ => return None,
    })
}

/// The reason of an error, with what to do about it where that is known.
pub(crate) fn explain(error: &ConnectionError) -> String {
    let alert_of = |code: u64| code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok());
    match error {
        ConnectionError::ApplicationClosed(ApplicationClose { reason, error_code }) => {
            if reason.is_empty() {
                format!("closed by the peer with code {error_code}")
            } else {
                String::from_utf8_lossy(reason).into_owned()
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let alert = alert_of(u64::from(close.error_code)).and_then(explain_alert);
            alert.map_or_else(|| error.to_string(), |text| format!("the peer refused: {text}"))
        }
        ConnectionError::TransportError(transport) => {
            let alert = alert_of(u64::from(transport.code)).and_then(explain_alert);
            alert.map_or_else(|| error.to_string(), |text| format!("{text} ({})", transport.reason))
        }
        ConnectionError::TimedOut => "no answer: the peer is down, cut off, or no UDP reaches it".into(),
        _ => error.to_string(),
    }
}
