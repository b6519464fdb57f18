//! The listening sockets: opened by the supervisor once, inherited by every worker.

use std::collections::BTreeSet;
use std::error::Error;
use std::os::fd::OwnedFd;

use hawksbill_core::config::Listen;
use hawksbill_core::{Address, BuildError};
use hawksbill_server::Listener;
use hawksbill_supervisor::Descriptors;
use hawksbill_supervisor::child::Child;
use serde::{Deserialize, Serialize};

/// The sockets of the configuration that is in force.
#[derive(Default)]
pub(super) struct Sockets(Vec<(Listen, Listener)>);

/// The sockets as a program that takes over finds them: how the configuration calls each, and how many there are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept(Vec<(String, usize)>);

/// The sockets of the configuration that is to come.
pub(super) struct Next {
    /// Only those that were not open before.
    opened: Vec<(Listen, Listener)>,
    wanted: Vec<Listen>,
    /// The same ones, for the workers.
    pub(super) descriptors: Descriptors,
    /// The names of all that are wanted.
    pub(super) names: BTreeSet<String>,
}

impl Sockets {
    /// Those of a former program. The files of Unix sockets are removed at the end of this one.
    pub(super) fn resume(
        kept: Kept,
        find: impl Fn(&str) -> Option<OwnedFd>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut all = Vec::new();
        for (text, count) in kept.0 {
            let listen: Listen = text.parse()?;
            let descriptors: Vec<_> = (0..count).map_while(|index| find(&name(&listen, index))).collect();
            if descriptors.len() < count {
                return Err(format!("the socket {text} was not handed over").into());
            }
            let mut listener = Listener::from_descriptors(descriptors)?;
            if let Listen::Unix(_) = listen {
                listener.own_files();
            }
            all.push((listen, listener));
        }
        Ok(Self(all))
    }

    /// For a program that takes over.
    pub(super) fn kept(&self) -> Kept {
        Kept(
            self.0
                .iter()
                .map(|(listen, listener)| (listen.to_string(), listener.addresses().len()))
                .collect(),
        )
    }

    /// Opens what is not open yet. Nothing changes until the result is [taken over](Self::take_over).
    pub(super) fn next(&self, wanted: Vec<Listen>) -> Result<Next, BuildError> {
        let failed = |error: &dyn std::fmt::Display| BuildError::new(error.to_string()).within("listen");
        let mut next =
            Next { opened: Vec::new(), wanted, descriptors: Descriptors::new(), names: BTreeSet::new() };
        for listen in &next.wanted {
            let known = self.0.iter().find(|(known, _)| known == listen);
            if let Some((_, listener)) = known {
                next.names.extend((0..listener.addresses().len()).map(|index| name(listen, index)));
                continue;
            }
            let listener = Listener::bind(listen).map_err(|error| failed(&error))?;
            let descriptors = listener.descriptors().map_err(|error| failed(&error))?;
            for (index, descriptor) in descriptors.into_iter().enumerate() {
                next.names.insert(name(listen, index));
                next.descriptors.insert(name(listen, index), descriptor);
            }
            next.opened.push((listen.clone(), listener));
        }
        Ok(next)
    }

    /// The new configuration is in force: what it does not name is closed.
    pub(super) fn take_over(&mut self, opened: Opened) {
        self.0.extend(opened.opened);
        self.0.retain(|(listen, _)| opened.wanted.contains(listen));
    }

    /// Where they are, in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<Address> {
        let bound = self.0.iter().flat_map(|(_, listener)| listener.addresses());
        bound.map(|bound| bound.address().clone()).collect()
    }
}

/// What is left of [`Next`] once the workers have their part.
pub(super) struct Opened {
    opened: Vec<(Listen, Listener)>,
    wanted: Vec<Listen>,
}

impl Next {
    pub(super) fn split(self) -> (Opened, Descriptors, BTreeSet<String>) {
        (Opened { opened: self.opened, wanted: self.wanted }, self.descriptors, self.names)
    }
}

/// The sockets that a worker has inherited, of those that its configuration names.
pub(super) fn inherited(child: &mut Child, wanted: &[Listen]) -> Result<Vec<(Listen, Listener)>, BuildError> {
    let mut found = Vec::new();
    for listen in wanted {
        let descriptors: Vec<_> = (0..).map_while(|index| child.take(&name(listen, index))).collect();
        if descriptors.is_empty() {
            return Err(BuildError::new(format!(
                "the socket {listen} was not handed over by the supervisor"
            )));
        }
        let listener = Listener::from_descriptors(descriptors);
        let listener = listener.map_err(|error| BuildError::new(format!("the socket {listen} {error}")))?;
        found.push((listen.clone(), listener));
    }
    Ok(found)
}

fn name(listen: &Listen, index: usize) -> String {
    format!("{listen} {index}")
}
