//! Folders that several builds on one node need: they are served by one session of their own, so that the daemon
//! knows that they are the same and takes every file once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use registry::docker_config::DockerConfig;

use super::session::Offer;
use super::solve::new_id;
use crate::settings::Settings;

/// What a build needs of its node, as far as folders are concerned.
#[derive(Debug)]
pub struct User<'a> {
    pub node: usize,
    pub folders: &'a BTreeMap<String, PathBuf>,
    pub attributes: &'a mut BTreeMap<String, String>,
    pub shared_key: String,
}

#[derive(Debug)]
pub struct SharedSession {
    pub id: String,
    pub node: usize,
    folders: BTreeMap<String, PathBuf>,
    shared_key: String,
}

impl SharedSession {
    /// Nothing but the folders.
    pub fn offer(&self, settings: &Settings) -> Offer {
        Offer {
            folders: self.folders.clone(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            destinations: Vec::new(),
            layouts: BTreeMap::new(),
            credentials: DockerConfig::default(),
            shared_key: self.shared_key.clone(),
            settings: settings.clone(),
        }
    }
}

/// Finds the folders that more than one build on a node uses under the same name, and tells these builds which
/// session has them.
pub fn share(users: &mut [User<'_>]) -> Vec<SharedSession> {
    let mut uses: BTreeMap<(usize, String, PathBuf), Vec<usize>> = BTreeMap::new();
    for (number, user) in users.iter().enumerate() {
        for (name, folder) in user.folders {
            let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
            uses.entry((user.node, name.clone(), folder))
                .or_default()
                .push(number);
        }
    }
    let mut sessions: Vec<SharedSession> = Vec::new();
    for ((node, name, folder), numbers) in uses {
        let [first, _, ..] = numbers.as_slice() else {
            continue;
        };
        // In one session a name stands for one folder.
        let free = |session: &SharedSession| session.node == node && !session.folders.contains_key(&name);
        let position = sessions.iter().position(free).unwrap_or_else(|| {
            sessions.push(SharedSession {
                id: new_id(),
                node,
                folders: BTreeMap::new(),
                shared_key: users[*first].shared_key.clone(),
            });
            sessions.len() - 1
        });
        let session = &mut sessions[position];
        session.folders.insert(name.clone(), folder);
        for number in numbers {
            users[number]
                .attributes
                .insert(format!("local-sessionid:{name}"), session.id.clone());
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_folders_of_one_node_are_served_once() {
        let folders = |list: &[(&str, &str)]| -> BTreeMap<String, PathBuf> {
            list.iter()
                .map(|(name, path)| ((*name).to_owned(), path.into()))
                .collect()
        };
        let a = folders(&[("context", "/a"), ("dockerfile", "/a")]);
        let b = folders(&[("context", "/b"), ("dockerfile", "/a")]);
        let sets = [(0, &a), (0, &a), (0, &b), (0, &b), (1, &a)];
        let mut attributes = vec![BTreeMap::new(); sets.len()];
        let mut users: Vec<User<'_>> = sets
            .iter()
            .zip(&mut attributes)
            .map(|((node, folders), attributes)| User {
                node: *node,
                folders,
                attributes,
                shared_key: String::new(),
            })
            .collect();
        let sessions = share(&mut users);
        assert_eq!(sessions.len(), 2);
        assert_eq!(sessions[0].folders, a);
        assert_eq!(sessions[1].folders, folders(&[("context", "/b")]));
        let (one, two) = (sessions[0].id.clone(), sessions[1].id.clone());
        for (attributes, context) in
            attributes
                .iter()
                .zip([Some(&one), Some(&one), Some(&two), Some(&two), None])
        {
            assert_eq!(attributes.get("local-sessionid:context"), context);
            let dockerfile = context.map(|_| &one);
            assert_eq!(attributes.get("local-sessionid:dockerfile"), dockerfile);
        }
    }
}
