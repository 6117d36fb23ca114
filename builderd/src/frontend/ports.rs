//! `EXPOSE [ip:][host:]port[-port][/protocol]` to `port/protocol`.

use std::net::IpAddr;

use super::Problem;

/// The ports that a specification names, one by one.
pub(super) fn parse(text: &str) -> Result<Vec<String>, Problem> {
    let problem = |reason: &str| Problem::Port(format!("invalid port: {text:?}: {reason}"));
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().filter(|host| !host.is_empty());
    let address = parts.next().filter(|address| !address.is_empty());
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(problem("no port specified"));
    }
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(problem(&format!("invalid proto: {protocol}"))),
    };
    if let Some(address) = address {
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        bare.parse::<IpAddr>()
            .map_err(|_| Problem::Port(format!("invalid IP address: {address}")))?;
    }
    let (first, last) =
        range(ports).ok_or_else(|| Problem::Port(format!("invalid containerPort: {ports}")))?;
    if let Some(host) = host {
        let (host_first, host_last) =
            range(host).ok_or_else(|| Problem::Port(format!("invalid hostPort: {host}")))?;
        if last - first != host_last - host_first && first != last {
            return Err(Problem::Port(format!(
                "invalid ranges specified for container and host Ports: {ports} and {host}"
            )));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_become_port_and_protocol() {
        for (text, expected) in [
            ("80", Some(vec!["80/tcp"])),
            ("53/UDP", Some(vec!["53/udp"])),
            (
                "8000-8002/sctp",
                Some(vec!["8000/sctp", "8001/sctp", "8002/sctp"]),
            ),
            ("8080:80", Some(vec!["80/tcp"])),
            ("127.0.0.1:8080:80", Some(vec!["80/tcp"])),
            ("[::1]:8080:80", Some(vec!["80/tcp"])),
            ("8000-8001:80", Some(vec!["80/tcp"])),
            ("65536", None),
            ("9-8", None),
            ("x", None),
            ("/tcp", None),
            ("80/icmp", None),
            ("1.2.3:1:2", None),
            ("1-2:3-5", None),
        ] {
            assert_eq!(
                parse(text).ok(),
                expected.map(|ports| ports.into_iter().map(str::to_owned).collect()),
                "{text}"
            );
        }
    }
}
