//! Which node of a builder builds which platform, and the way to each of them.
//!
//! A platform goes to the node that was given it, else to one whose own processor runs it, else to one that emulates
//! it; of equals to the first, so that a build is only ever split where another node is better. As long as the
//! platforms that users gave to nodes settle everything, no other node is started.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use binfmt::Platform;
use tonic::transport::Channel;

use crate::builders::Builder;
use crate::daemon::{self, DaemonInfo};
use crate::instance::LoadedNode;
use crate::progress;

/// What one node builds of a target. No platforms: the one that the daemon runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Position among the usable nodes.
    pub node: usize,
    pub platforms: Vec<Platform>,
}

/// What is known of a node's platforms.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    /// Given by the user.
    pub fixed: Vec<Platform>,
    /// What its daemon says, its own platform first; nothing as long as it was not asked.
    pub offered: Vec<Platform>,
}

/// How well a node serves a platform; the smallest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Given,
    Native,
    GivenSimilar,
    Emulated,
    Similar,
}

impl Abilities {
    fn fit(&self, wanted: &Platform) -> Option<Fit> {
        if self.fixed.contains(wanted) {
            return Some(Fit::Given);
        }
        let serves = |known: &Platform| known.accepts(wanted);
        let is_offered = self.offered.contains(wanted);
        let native = self.offered.first().is_some_and(|own| {
            own.accepts(wanted)
                || (is_offered && own.os() == wanted.os() && own.architecture() == wanted.architecture())
        });
        if native {
            Some(Fit::Native)
        } else if self.fixed.iter().any(serves) {
            Some(Fit::GivenSimilar)
        } else if is_offered {
            Some(Fit::Emulated)
        } else if self.offered.iter().any(serves) {
            Some(Fit::Similar)
        } else {
            None
        }
    }
}

/// Deals the platforms of a target out. What no node offers goes to the first, whose daemon will say what is missing.
pub fn assign(wanted: &[Platform], nodes: &[Abilities]) -> Vec<Share> {
    let best = |platform: &Platform| {
        let fits = nodes.iter().enumerate();
        fits.filter_map(|(node, abilities)| Some((abilities.fit(platform)?, node)))
            .min()
            .map_or(0, |(_, node)| node)
    };
    share_out(wanted, best)
}

/// The shares, if the platforms that users gave to nodes say it all.
pub fn assign_given(wanted: &[Platform], nodes: &[Abilities]) -> Option<Vec<Share>> {
    let owner = |platform: &Platform| nodes.iter().position(|node| node.fixed.contains(platform));
    let settled = nodes.len() == 1 || wanted.iter().all(|platform| owner(platform).is_some());
    settled.then(|| share_out(wanted, |platform| owner(platform).unwrap_or(0)))
}

fn share_out(wanted: &[Platform], best: impl Fn(&Platform) -> usize) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for platform in wanted {
        let node = best(platform);
        match shares.iter_mut().find(|share| share.node == node) {
            Some(share) => share.platforms.push(platform.clone()),
            None => shares.push(Share {
                node,
                platforms: vec![platform.clone()],
            }),
        }
    }
    if shares.is_empty() {
        shares.push(Share {
            node: 0,
            platforms: Vec::new(),
        });
    }
    shares
}

/// The nodes of a builder that can be worked with, and connections to those that have been needed so far.
#[derive(Debug)]
pub struct Nodes<'a> {
    usable: Vec<&'a LoadedNode>,
    connected: BTreeMap<usize, (Channel, DaemonInfo)>,
}

impl<'a> Nodes<'a> {
    pub fn new(builder: &Builder, nodes: &'a [LoadedNode]) -> anyhow::Result<Self> {
        let usable: Vec<&LoadedNode> = nodes
            .iter()
            .filter(|node| node.driver.is_some() && node.state.is_ok())
            .collect();
        if usable.is_empty() {
            let reason = |node: &LoadedNode| {
                let error = node.state.as_ref().err()?;
                Some(format!("{}: {}", node.node.name, crate::error::chain(error)))
            };
            let reasons: Vec<String> = nodes.iter().filter_map(reason).collect();
            bail!(
                "failed to find a usable node of builder \"{}\": {}",
                builder.name,
                reasons.join("; ")
            );
        }
        Ok(Self {
            usable,
            connected: BTreeMap::new(),
        })
    }

    pub fn name(&self, node: usize) -> &str {
        &self.usable[node].node.name
    }

    /// The connection to a node that some target was assigned to.
    pub fn channel(&self, node: usize) -> anyhow::Result<Channel> {
        let (channel, _) = self.connected.get(&node).context("the node was not started")?;
        Ok(channel.clone())
    }

    /// Decides which nodes build which platforms of each target, and starts them.
    pub async fn assign(
        &mut self,
        wanted: &BTreeMap<&str, &[Platform]>,
        progress: &progress::Sender,
    ) -> anyhow::Result<BTreeMap<String, Vec<Share>>> {
        let all = |assign: &dyn Fn(&[Platform]) -> Option<Vec<Share>>| {
            let shares = wanted
                .iter()
                .map(|(target, platforms)| Some(((*target).to_owned(), assign(platforms)?)));
            shares.collect::<Option<BTreeMap<_, _>>>()
        };
        let abilities = self.abilities();
        if let Some(shares) = all(&|platforms| assign_given(platforms, &abilities)) {
            let needed = shares.values().flatten().map(|share| share.node).collect();
            self.connect(needed, progress).await?;
            return Ok(shares);
        }
        self.connect((0..self.usable.len()).collect(), progress).await?;
        let abilities = self.abilities();
        all(&|platforms| Some(assign(platforms, &abilities))).context("no node for the platforms")
    }

    fn abilities(&self) -> Vec<Abilities> {
        let of = |(number, node): (usize, &&LoadedNode)| Abilities {
            fixed: node.node.platforms.clone(),
            offered: self
                .connected
                .get(&number)
                .map(|(_, info)| info.platforms.clone())
                .unwrap_or_default(),
        };
        self.usable.iter().enumerate().map(of).collect()
    }

    /// Starts nodes side by side, those that do not run.
    async fn connect(
        &mut self,
        numbers: std::collections::BTreeSet<usize>,
        progress: &progress::Sender,
    ) -> anyhow::Result<()> {
        let several = self.usable.len() > 1;
        let missing = numbers
            .into_iter()
            .filter(|number| !self.connected.contains_key(number));
        let connecting = missing.map(|number| {
            let node = self.usable[number];
            async move {
                let connected = connect(node, progress).await;
                let named = |error: anyhow::Error| match several {
                    true => error.context(format!("node {}", node.node.name)),
                    false => error,
                };
                connected.map(|connection| (number, connection)).map_err(named)
            }
        });
        let connected = futures::future::try_join_all(connecting.collect::<Vec<_>>()).await?;
        self.connected.extend(connected);
        Ok(())
    }
}

async fn connect(node: &LoadedNode, progress: &progress::Sender) -> anyhow::Result<(Channel, DaemonInfo)> {
    if let Ok(state) = &node.state
        && let (Some(channel), Some(info)) = (&state.channel, &state.info)
    {
        return Ok((channel.clone(), info.clone()));
    }
    // It does not run, or runs and does not answer yet, as after a restart of the engine.
    let driver = node.driver.as_ref().context("the node has no driver")?;
    driver.boot(progress).await?;
    let channel = driver.channel()?;
    let info = daemon::info(channel.clone()).await.context("asking the daemon")?;
    Ok((channel, info))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platforms(list: &str) -> Vec<Platform> {
        list.split_whitespace()
            .map(|text| text.parse().unwrap())
            .collect()
    }

    fn nodes(list: &[(&str, &str)]) -> Vec<Abilities> {
        list.iter()
            .map(|(fixed, offered)| Abilities {
                fixed: platforms(fixed),
                offered: platforms(offered),
            })
            .collect()
    }

    fn shown(shares: &[Share]) -> String {
        let one = |share: &Share| {
            let platforms: Vec<_> = share.platforms.iter().map(ToString::to_string).collect();
            format!("{}: {}", share.node, platforms.join(" "))
        };
        shares.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn platforms_go_to_the_node_that_is_best_for_them() {
        let amd = (
            "",
            "linux/amd64 linux/amd64/v2 linux/386 linux/arm64 linux/riscv64",
        );
        let arm = ("", "linux/arm64 linux/arm/v7 linux/amd64 linux/riscv64");
        let given = ("linux/riscv64", "linux/amd64 linux/riscv64");
        for (wanted, offers, expected) in [
            ("", &[amd, arm][..], "0: "),
            (
                "linux/amd64 linux/arm64",
                &[amd, arm],
                "0: linux/amd64; 1: linux/arm64",
            ),
            (
                "linux/arm64 linux/amd64",
                &[amd, arm],
                "1: linux/arm64; 0: linux/amd64",
            ),
            (
                "linux/amd64 linux/arm64",
                &[amd, amd],
                "0: linux/amd64 linux/arm64",
            ),
            (
                "linux/amd64/v2 linux/386",
                &[arm, amd],
                "1: linux/amd64/v2 linux/386",
            ),
            ("linux/arm/v7", &[amd, arm], "1: linux/arm/v7"),
            (
                "linux/amd64 linux/riscv64",
                &[amd, given],
                "0: linux/amd64; 1: linux/riscv64",
            ),
            (
                "linux/s390x linux/amd64",
                &[arm, amd],
                "0: linux/s390x; 1: linux/amd64",
            ),
        ] {
            assert_eq!(
                shown(&assign(&platforms(wanted), &nodes(offers))),
                expected,
                "{wanted}"
            );
        }
    }

    #[test]
    fn what_users_gave_to_nodes_needs_no_other_node() {
        let two = nodes(&[("linux/amd64", ""), ("linux/arm64", "")]);
        let shares = assign_given(&platforms("linux/arm64"), &two).unwrap();
        assert_eq!(shown(&shares), "1: linux/arm64");
        assert_eq!(assign_given(&platforms("linux/arm64 linux/386"), &two), None);
        assert_eq!(shown(&assign_given(&[], &two).unwrap()), "0: ");
        let one = nodes(&[("", "")]);
        let shares = assign_given(&platforms("linux/arm64 linux/386"), &one).unwrap();
        assert_eq!(shown(&shares), "0: linux/arm64 linux/386");
    }
}
