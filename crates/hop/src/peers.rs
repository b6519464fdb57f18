//! The peers of a front's clients, as a worker has them: one for each of their connections, with a number of its own.

use bytes::Bytes;
use hawksbill_core::Peer;

use crate::Fault;
use crate::wire::connection_of;

/// How many connections are remembered.
const KEPT: usize = 1024;

/// Peers by the number that their connection has at the front.
///
/// One that is forgotten is made anew at the connection's next request, and then has another number: whoever keeps
/// something under it finds it no more, and never finds another client's.
#[derive(Default)]
pub(crate) struct Peers {
    known: Vec<Option<Known>>,
}

struct Known {
    number: u64,
    facts: Bytes,
    peer: Peer,
}

impl Peers {
    /// The peer of a connection that has this number and these facts at the front.
    pub(crate) fn of(&mut self, number: u64, facts: &Bytes) -> Result<Peer, Fault> {
        let place = usize::try_from(number % KEPT as u64).unwrap_or_default();
        if let Some(Some(known)) = self.known.get(place)
            && known.number == number
            && known.facts == facts
        {
            return Ok(known.peer.clone());
        }
        let peer = Peer::new(connection_of(facts)?);
        if self.known.len() <= place {
            self.known.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.known.get_mut(place) {
            // Not a part of the head, which would be kept with it.
            let facts = Bytes::copy_from_slice(facts);
            *slot = Some(Known { number, facts, peer: peer.clone() });
        }
        Ok(peer)
    }
}
