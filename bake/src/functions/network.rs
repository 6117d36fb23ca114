//! Network prefixes in CIDR notation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Arguments, Fault, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("cidrhost", &["prefix", "hostnum"], |a| {
        let prefix = Prefix::read(a)?;
        let number: i128 = a.int(1)?;
        let room = prefix.width() - prefix.length;
        let offset = if number < 0 {
            // From the end: -1 is the last address.
            let back = number.unsigned_abs();
            let count = 1_u128.checked_shl(room).unwrap_or(0);
            (room == 128 || back <= count).then(|| count.wrapping_sub(back))
        } else {
            let number = number.unsigned_abs();
            number
                .checked_shr(room)
                .is_none_or(|rest| rest == 0)
                .then_some(number)
        };
        let offset = offset.ok_or_else(|| {
            Fault::of(
                1,
                format!(
                    "prefix of {} does not accommodate a host numbered {number}",
                    prefix.length
                ),
            )
        })?;
        Ok(Value::text(prefix.address(prefix.bits | offset).to_string()))
    }),
    Function::new("cidrnetmask", &["prefix"], |a| {
        let prefix = Prefix::read(a)?;
        if !prefix.is_v4 {
            return Err(Fault::of(0, "only IPv4 networks are supported"));
        }
        Ok(Value::text(prefix.address(prefix.mask()).to_string()))
    }),
    Function::new("cidrsubnet", &["prefix", "newbits", "netnum"], |a| {
        let prefix = Prefix::read(a)?;
        let added: u32 = a.int(1)?;
        let number: u128 = a.int(2)?;
        Ok(Value::String(prefix.subnet(added, number)?.to_string()))
    }),
    Function::new("cidrsubnets", &["prefix"], subnets).and_others("newbits"),
];

struct Prefix {
    is_v4: bool,
    /// Without the bits of hosts.
    bits: u128,
    length: u32,
}

impl Prefix {
    fn read(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        let text = arguments.text(0)?;
        let invalid = || Fault::of(0, format!("invalid CIDR address: {text}"));
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let (is_v4, bits) = match address.parse().map_err(|_| invalid())? {
            IpAddr::V4(address) => (true, u128::from(address.to_bits())),
            IpAddr::V6(address) => (false, address.to_bits()),
        };
        let mut prefix = Self {
            is_v4,
            bits,
            length: length.parse().map_err(|_| invalid())?,
        };
        if prefix.length > prefix.width() {
            return Err(invalid());
        }
        prefix.bits &= prefix.mask();
        Ok(prefix)
    }

    fn width(&self) -> u32 {
        if self.is_v4 { 32 } else { 128 }
    }

    fn mask(&self) -> u128 {
        let all = if self.is_v4 {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        };
        let hosts = self.width() - self.length;
        all & u128::MAX.checked_shl(hosts).unwrap_or(0)
    }

    fn address(&self, bits: u128) -> IpAddr {
        match u32::try_from(bits) {
            Ok(bits) if self.is_v4 => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }

    fn subnet(&self, added: u32, number: u128) -> Result<Self, Fault> {
        let length = self.length.saturating_add(added);
        if length > self.width() {
            return Err(format!(
                "insufficient address space to extend prefix of {} by {added}",
                self.length
            )
            .into());
        }
        if number.checked_shr(added).is_some_and(|rest| rest > 0) {
            return Err(format!(
                "prefix extension of {added} does not accommodate a subnet numbered {number}"
            )
            .into());
        }
        let shift = self.width() - length;
        Ok(Self {
            is_v4: self.is_v4,
            bits: self.bits | number.checked_shl(shift).unwrap_or(0),
            length,
        })
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address(self.bits), self.length)
    }
}

/// One after the other, each at the first place that its size allows.
fn subnets(arguments: &Arguments<'_>) -> Outcome {
    let prefix = Prefix::read(arguments)?;
    let mut made = Vec::new();
    // The first address that is free, relative to the prefix.
    let mut free: u128 = 0;
    for at in arguments.from(1) {
        let added: u32 = arguments.int(at)?;
        if added == 0 {
            return Err(Fault::of(at, "must extend prefix by at least one bit"));
        }
        let length = prefix.length.saturating_add(added);
        let room = prefix.width().checked_sub(length).ok_or_else(|| {
            Fault::of(
                at,
                format!("would extend prefix to {length} bits, which is too long for the address"),
            )
        })?;
        let number = free.div_ceil(1_u128.checked_shl(room).unwrap_or(u128::MAX));
        let subnet = prefix.subnet(added, number).map_err(|_| {
            Fault::of(
                at,
                "not enough remaining address space for a subnet with this prefix",
            )
        })?;
        free = (number + 1).checked_shl(room).unwrap_or(u128::MAX);
        made.push(Value::String(subnet.to_string()));
    }
    Ok(Value::List(made))
}
