//! Records of members as bytes (rule N3): as short as can be, since many share a datagram.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{Generation, Labels, ListedMember, MemberRecord, Software, Standing};
use crate::id::{InvalidInput, Location, ReplicaId};
use crate::limits::MEMBER_DOWN_LISTED_S;

const FLAG_V6: u8 = 1;
const FLAG_READ_ONLY: u8 = 2;
const FLAG_LEFT: u8 = 4;

/// Bytes that are no record of a member, or no datagram of membership. Nothing of them was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; nothing was applied")]
pub struct MalformedMember(pub(crate) String);

impl MalformedMember {
    pub(crate) fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl From<InvalidInput> for MalformedMember {
    fn from(error: InvalidInput) -> Self {
        Self(error.to_string())
    }
}

/// Reads from the front of some bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedMember> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| MalformedMember::new("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedMember> {
        <[u8; N]>::try_from(self.take(N)?).map_err(|_| MalformedMember::new("it ends too early"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, MalformedMember> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// A number of 7 bits a byte, the lowest first, in its shortest form.
    pub(crate) fn number(&mut self) -> Result<u64, MalformedMember> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let is_shortest = byte != 0 || shift == 0;
                return if is_shortest { Ok(number) } else { Err(MalformedMember::new("a number is too long")) };
            }
        }
        Err(MalformedMember::new("a number is too long"))
    }

    pub(crate) fn small(&mut self) -> Result<u16, MalformedMember> {
        u16::try_from(self.number()?).map_err(|_| MalformedMember::new("a number is too large"))
    }

    fn text(&mut self) -> Result<&'a str, MalformedMember> {
        let count = usize::from(self.byte()?);
        std::str::from_utf8(self.take(count)?).map_err(|_| MalformedMember::new("a text is no UTF-8"))
    }

    pub(crate) fn replica(&mut self) -> Result<ReplicaId, MalformedMember> {
        let bits = u64::from_be_bytes(self.array()?);
        ReplicaId::from_bits(bits).ok_or_else(|| MalformedMember::new("a replica id is zero"))
    }

    pub(crate) fn generation(&mut self) -> Result<Generation, MalformedMember> {
        Ok(Generation::new(self.number()?)?)
    }
}

pub(crate) fn put_number(mut number: u64, bytes: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// All texts of a record are bounded far below 256 bytes where they are made.
fn put_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(u8::try_from(text.len()).unwrap_or_default());
    bytes.extend_from_slice(text.as_bytes());
}

impl MemberRecord {
    /// Appends the record's bytes (rule N3).
    pub fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.replica.bits().to_be_bytes());
        put_number(self.generation.get(), bytes);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags =
            flag(self.address.is_ipv6(), FLAG_V6) | flag(self.read_only, FLAG_READ_ONLY) | flag(self.left, FLAG_LEFT);
        bytes.push(flags);
        match self.address.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&self.address.port().to_be_bytes());
        put_text(self.location.as_str(), bytes);
        put_text(self.software.as_str(), bytes);
        bytes.push(u8::try_from(self.labels.iter().len()).unwrap_or_default());
        for (key, value) in self.labels.iter() {
            put_text(key, bytes);
            put_text(value, bytes);
        }
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, MalformedMember> {
        let (replica, generation, flags) = (reader.replica()?, reader.generation()?, reader.byte()?);
        if flags & !(FLAG_V6 | FLAG_READ_ONLY | FLAG_LEFT) != 0 {
            return Err(MalformedMember::new("a record has unknown flags"));
        }
        let ip = if flags & FLAG_V6 == 0 {
            IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?))
        } else {
            IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?))
        };
        let address = SocketAddr::new(ip, u16::from_be_bytes(reader.array()?));
        let (location, software) = (Location::new(reader.text()?)?, Software::new(reader.text()?)?);
        let mut labels = Vec::new();
        for _ in 0..reader.byte()? {
            labels.push((reader.text()?, reader.text()?));
        }
        if !labels.is_sorted_by(|left, right| left.0 < right.0) {
            return Err(MalformedMember::new("labels are not in strict order"));
        }
        let labels = Labels::new(labels)?;
        let (read_only, left) = (flags & FLAG_READ_ONLY != 0, flags & FLAG_LEFT != 0);
        Ok(Self { replica, generation, address, location, labels, software, read_only, left })
    }
}

impl Standing {
    /// What is told: that a member left is said by its record.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Alive => 0,
            Self::Suspect => 1,
            Self::Down | Self::Left => 2,
        }
    }

    pub(crate) fn of_byte(byte: u8, left: bool) -> Result<Self, MalformedMember> {
        match byte {
            0 => Ok(Self::Alive),
            1 => Ok(Self::Suspect),
            2 if left => Ok(Self::Left),
            2 => Ok(Self::Down),
            _ => Err(MalformedMember::new("a member stands in no way that is known")),
        }
    }
}

impl ListedMember {
    /// Its bytes (rule N7).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        self.record.put(&mut bytes);
        put_number(u64::from(self.incarnation), &mut bytes);
        bytes.push(self.standing.byte());
        put_number(u64::from(self.down_for_s), &mut bytes);
        bytes
    }

    /// Reads all of `bytes` as one listed member.
    ///
    /// # Errors
    /// If they break a rule of the encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMember> {
        let mut reader = Reader(bytes);
        let record = MemberRecord::take(&mut reader)?;
        let incarnation = reader.small()?;
        let standing = Standing::of_byte(reader.byte()?, record.left)?;
        let down_for_s = u32::try_from(reader.number()?).unwrap_or(u32::MAX);
        if !reader.is_empty() {
            return Err(MalformedMember::new("bytes follow a listed member"));
        }
        if (standing.is_up() && down_for_s != 0) || down_for_s > MEMBER_DOWN_LISTED_S {
            return Err(MalformedMember::new("a listed member has a time that cannot be"));
        }
        Ok(Self { record: Arc::new(record), incarnation, standing, down_for_s })
    }
}
