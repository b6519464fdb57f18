//! The listening sockets: opened by the supervisor once, inherited by every worker.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::fd::OwnedFd;

use hawksbill_core::config::Listen;
use hawksbill_core::{Address, BuildError};
use hawksbill_server::Listener;
use hawksbill_supervisor::Descriptors;
use hawksbill_supervisor::child::Child;
use serde::{Deserialize, Serialize};

use super::passed::{Label, Passed};

/// The sockets of the configuration that is in force.
#[derive(Default)]
pub(super) struct Sockets {
    open: Vec<Open>,
    /// What a service manager has opened. Kept in any case: while it listens, nobody else can.
    passed: Vec<Passed>,
}

/// One place of the configuration.
struct Open {
    listen: Listen,
    listener: Listener,
    /// The sockets of the service manager that it consists of; none, if it was bound here.
    passed: Vec<Label>,
}

/// The sockets as a program that takes over finds them: how the configuration calls each, and how many there are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept(Vec<(String, usize)>);

/// Which of them are a service manager's. Of what is not here the files are this program's.
pub(super) type KeptPassed = BTreeMap<String, Vec<Label>>;

/// The sockets of the configuration that is to come.
pub(super) struct Next {
    /// Only those that were not open before.
    opened: Vec<Open>,
    wanted: Vec<Listen>,
    /// The same ones, for the workers.
    pub(super) descriptors: Descriptors,
    /// The names of all that are wanted.
    pub(super) names: BTreeSet<String>,
}

impl Sockets {
    /// None but those that a service manager has passed.
    pub(super) fn passed(descriptors: Descriptors) -> Result<Self, String> {
        Ok(Self { open: Vec::new(), passed: Passed::all(descriptors)? })
    }

    /// Those of a former program. The files of Unix sockets that it made are removed at the end of this one.
    pub(super) fn resume(
        kept: Kept,
        mut kept_passed: KeptPassed,
        find: impl Fn(&str) -> Option<OwnedFd>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (mut open, mut all_passed) = (Vec::new(), Vec::new());
        for (text, count) in kept.0 {
            let listen: Listen = text.parse()?;
            let descriptors: Vec<_> = (0..count).map_while(|index| find(&name(&listen, index))).collect();
            if descriptors.len() < count {
                return Err(format!("the socket {text} was not handed over").into());
            }
            let passed = kept_passed.remove(&text).unwrap_or_default();
            for (label, descriptor) in passed.iter().zip(&descriptors) {
                let listener = Listener::from_descriptors([descriptor.try_clone()?])?;
                all_passed.push(Passed::again(label.clone(), listener));
            }
            let mut listener = Listener::from_descriptors(descriptors)?;
            if matches!(listen, Listen::Unix(_)) && passed.is_empty() {
                listener.own_files();
            }
            open.push(Open { listen, listener, passed });
        }
        Ok(Self { open, passed: all_passed })
    }

    /// For a program that takes over.
    pub(super) fn kept(&self) -> (Kept, KeptPassed) {
        let all = self.open.iter().map(|open| (open.listen.to_string(), open.listener.addresses().len()));
        let passed = self.open.iter().filter(|open| !open.passed.is_empty());
        let passed = passed.map(|open| (open.listen.to_string(), open.passed.clone()));
        (Kept(all.collect()), passed.collect())
    }

    /// Opens what is not open yet. Nothing changes until the result is [taken over](Self::take_over).
    pub(super) fn next(&self, wanted: Vec<Listen>) -> Result<Next, BuildError> {
        let failed = |error: &dyn std::fmt::Display| BuildError::new(error.to_string()).within("listen");
        let mut all_passed: Vec<Vec<&Passed>> = wanted.iter().map(|_| Vec::new()).collect();
        for passed in &self.passed {
            let place = passed.place(&wanted).map_err(|error| error.within("listen"))?;
            all_passed.get_mut(place).into_iter().for_each(|there| there.push(passed));
        }
        let mut next =
            Next { opened: Vec::new(), wanted, descriptors: Descriptors::new(), names: BTreeSet::new() };
        for (listen, passed) in next.wanted.iter().zip(all_passed) {
            let labels: Vec<Label> = passed.iter().map(|passed| passed.label.clone()).collect();
            if let Some(known) = self.open.iter().find(|known| known.listen == *listen) {
                if known.passed != labels {
                    return Err(failed(&format_args!(
                        "{listen} would stand for other sockets of the service manager than now; restart Hawksbill to change that"
                    )));
                }
                next.names.extend((0..known.listener.addresses().len()).map(|index| name(listen, index)));
                continue;
            }
            let listener = if passed.is_empty() {
                Listener::bind(listen).map_err(|error| failed(&error))?
            } else {
                Passed::listener(&passed).map_err(|error| error.within("listen"))?
            };
            let descriptors = listener.descriptors().map_err(|error| failed(&error))?;
            for (index, descriptor) in descriptors.into_iter().enumerate() {
                next.names.insert(name(listen, index));
                next.descriptors.insert(name(listen, index), descriptor);
            }
            next.opened.push(Open { listen: listen.clone(), listener, passed: labels });
        }
        Ok(next)
    }

    /// The new configuration is in force: what it does not name is closed.
    pub(super) fn take_over(&mut self, opened: Opened) {
        self.open.extend(opened.opened);
        self.open.retain(|open| opened.wanted.contains(&open.listen));
    }

    /// Where they are, in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<Address> {
        let bound = self.open.iter().flat_map(|open| open.listener.addresses());
        bound.map(|bound| bound.address().clone()).collect()
    }
}

/// What is left of [`Next`] once the workers have their part.
pub(super) struct Opened {
    opened: Vec<Open>,
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
