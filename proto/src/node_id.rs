//! The one definition of a node's identity.
//!
//! Owns parsing and printing of ids. Refuses anything that is not 20 bytes or `0x` + 40 hex digits.

use std::fmt;
use std::str::FromStr;

/// Length of an id in bytes.
pub const NODE_ID_BYTES: usize = 20;
/// Length of an id as it is printed.
pub const NODE_ID_TEXT_BYTES: usize = 2 + 2 * NODE_ID_BYTES;

/// A provider's identity on the Golem network: 20 bytes, printed `0x` + 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; NODE_ID_BYTES]);

/// A text or byte string that is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// The text is not `0x` + 40 hex digits.
    #[error("a node id is 0x and 40 hex digits, not {0:?}")]
    Text(String),
    /// The byte string is not 20 bytes long.
    #[error("a node id is 20 bytes, not {0}")]
    Length(usize),
}

impl NodeId {
    /// The id with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; NODE_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The id with these bytes.
    ///
    /// # Errors
    /// When there are not exactly 20 of them.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, NodeIdError> {
        bytes.try_into().map(Self).map_err(|_| NodeIdError::Length(bytes.len()))
    }

    /// The 20 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; NODE_ID_BYTES] {
        &self.0
    }

    /// As it is printed, in ASCII: for whoever prints a million of them.
    #[must_use]
    pub fn to_text(&self) -> [u8; NODE_ID_TEXT_BYTES] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; NODE_ID_TEXT_BYTES];
        text[0] = b'0';
        text[1] = b'x';
        for (byte, pair) in self.0.iter().zip(text[2..].chunks_exact_mut(2)) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    /// Splits concatenated ids.
    ///
    /// # Errors
    /// When the length is not a multiple of 20.
    pub fn split(concatenated: &[u8]) -> Result<impl Iterator<Item = Self> + '_, NodeIdError> {
        let (chunks, rest) = concatenated.as_chunks::<NODE_ID_BYTES>();
        if rest.is_empty() {
            Ok(chunks.iter().map(|chunk| Self(*chunk)))
        } else {
            Err(NodeIdError::Length(rest.len()))
        }
    }

    /// Concatenates ids, the inverse of [`NodeId::split`].
    pub fn concatenate<'a>(ids: impl IntoIterator<Item = &'a Self>) -> Vec<u8> {
        let ids = ids.into_iter();
        let mut bytes = Vec::with_capacity(ids.size_hint().0 * NODE_ID_BYTES);
        // By whole ids: byte by byte takes many times as long.
        ids.for_each(|id| bytes.extend_from_slice(&id.0));
        bytes
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        out.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || NodeIdError::Text(text.chars().take(64).collect());
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let digits = digits.ok_or_else(fault)?.as_bytes();
        if digits.len() != 2 * NODE_ID_BYTES {
            return Err(fault());
        }
        let mut bytes = [0; NODE_ID_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (digit(pair[0]).ok_or_else(fault)? << 4) | digit(pair[1]).ok_or_else(fault)?;
        }
        Ok(Self(bytes))
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn prints_lower_case_whatever_was_read() {
        let text = "0X85F06344fde97d390e87b0840b0325212f26eba7";
        let id: NodeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text.to_lowercase());
        assert_eq!(NodeId::from_slice(id.as_bytes()).unwrap(), id);
    }

    #[test]
    fn refuses_what_is_no_id() {
        for text in [
            "",
            "0x",
            "85f06344fde97d390e87b0840b0325212f26eba7",
            "0x85f06344fde97d390e87b0840b0325212f26eba",
            "0x85f06344fde97d390e87b0840b0325212f26eba77",
            "0x85f06344fde97d390e87b0840b0325212f26ebag",
            "0x+5f06344fde97d390e87b0840b0325212f26eba7",
            "0xü5f06344fde97d390e87b0840b0325212f26eba",
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
        assert!(NodeId::split(&[0; 21]).is_err());
        assert_eq!(NodeId::split(&[7; 40]).unwrap().count(), 2);
    }
}
