//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of IP addresses: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

fn mask(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

impl Cidr {
    /// Whether an address is in the range; an IPv4 address mapped into IPv6 counts as itself.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.base.is_ipv4() && mask(ip, self.bits) == self.base
    }

    /// Whether every address of the other range is in this one.
    pub fn covers(&self, other: &Cidr) -> bool {
        self.bits <= other.bits && self.contains(other.base)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| "write an address or a range: \"10.0.0.0/8\"".to_owned())?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => longest,
            Some(bits) => {
                bits.parse().ok().filter(|bits| *bits <= longest).ok_or(format!("a prefix has 0 to {longest} bits"))?
            }
        };
        if mask(base, bits) != base {
            return Err(format!("did you mean \"{}/{bits}\"?", mask(base, bits)));
        }
        Ok(Cidr { base, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_they_say() {
        let range: Cidr = "10.1.0.0/16".parse().expect("a range");
        assert!(range.contains("10.1.255.1".parse().expect("an address")));
        assert!(range.contains("::ffff:10.1.0.1".parse().expect("an address")));
        assert!(!range.contains("10.2.0.1".parse().expect("an address")));
        assert!(!range.contains("::1".parse().expect("an address")));
        let all: Cidr = "0.0.0.0/0".parse().expect("a range");
        assert!(all.contains("255.1.1.1".parse().expect("an address")) && all.covers(&range) && !range.covers(&all));
        assert!("::1".parse::<Cidr>().is_ok_and(|one| one.contains("::1".parse().expect("an address"))));
        assert_eq!("10.0.0.1/8".parse::<Cidr>(), Err("did you mean \"10.0.0.0/8\"?".to_owned()));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "x".parse::<Cidr>().is_err());
    }
}
