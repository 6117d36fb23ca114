//! The two files about names that every step gets: /etc/hosts and /etc/resolv.conf.

use std::fmt::Write;
use std::fs;

use crate::executor::Resolver;
use crate::executor::step::ExtraHost;

/// What BuildKit calls the machine a step sees.
pub(super) const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Docker's fall-back where nothing is configured.
const PUBLIC_RESOLVERS: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

/// The sandbox's own file, and what the daemon's settings put in place of it. It holds for steps as it is, loopback addresses too, because they share its network.
pub(super) fn read_resolver_configuration(resolver: &Resolver) -> String {
    // A missing or unreadable file is an unconfigured resolver.
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    with_resolver(resolver.over(&own))
}

fn with_resolver(mut configuration: String) -> String {
    let configured = configuration.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver") && words.next().is_some()
    });
    if !configured {
        if !configuration.is_empty() && !configuration.ends_with('\n') {
            configuration.push('\n');
        }
        configuration.push_str(PUBLIC_RESOLVERS);
    }
    configuration
}

pub(super) fn hosts(hostname: &str, extra: &[ExtraHost]) -> String {
    let mut hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for ExtraHost { host, ip } in extra {
        // Writing to a string cannot fail.
        let _infallible = writeln!(hosts, "{ip}\t{host}");
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unconfigured_resolver_becomes_a_public_one() {
        for (before, after) in [
            ("", PUBLIC_RESOLVERS.to_owned()),
            ("search corp", format!("search corp\n{PUBLIC_RESOLVERS}")),
            (
                "# nameserver 1.1.1.1\n",
                format!("# nameserver 1.1.1.1\n{PUBLIC_RESOLVERS}"),
            ),
            ("nameserver 127.0.0.11\n", "nameserver 127.0.0.11\n".to_owned()),
        ] {
            assert_eq!(with_resolver(before.to_owned()), after);
        }
    }

    #[test]
    fn extra_hosts_follow_the_standard_ones() {
        let extra = [ExtraHost {
            host: "db".into(),
            ip: "10.0.0.7".parse().unwrap(),
        }];
        assert_eq!(
            hosts("box", &extra),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\n"
        );
    }
}
