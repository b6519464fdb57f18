//! Who is in a pool, who has room, who waits for it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::Connection;
use crate::pool::{WorkerId, WorkerStatus};
use crate::seat::Seat;

/// The workers of a pool and the requests that wait for one.
#[derive(Default)]
pub(crate) struct Members {
    state: Mutex<State>,
    /// How many wait: looked at whenever a request ends.
    waiting: AtomicUsize,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    members: Vec<Member>,
    last_id: u64,
    /// Where the search among equals begins.
    turn: usize,
    queue: VecDeque<oneshot::Sender<(Connection, Seat)>>,
}

/// Where a worker is.
pub(crate) enum Place {
    Socket(PathBuf),
    Stream,
}

pub(crate) struct Member {
    id: WorkerId,
    place: Place,
    connection: Option<Connection>,
    /// It gets no new requests, whatever it says.
    retired: bool,
    trouble: Option<String>,
    /// What keeps it connected.
    keeper: Option<AbortHandle>,
}

impl Member {
    pub(crate) fn new(place: Place) -> Self {
        Self { id: WorkerId(0), place, connection: None, retired: false, trouble: None, keeper: None }
    }

    fn open(&self) -> Option<&Connection> {
        self.connection.as_ref().filter(|connection| !self.retired && connection.is_open())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl State {
    fn member(&mut self, id: WorkerId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// A seat at the worker that is the least busy for its capacity.
    fn choose(&mut self) -> Option<(Connection, Seat)> {
        self.turn = self.turn.wrapping_add(1);
        // Another thread may take the last seat in between, but only as often as there are seats.
        loop {
            let count = self.members.len();
            let start = self.turn.checked_rem(count)?;
            let order = self.members[start..].iter().chain(&self.members[..start]);
            let load = |connection: &Connection| (connection.in_flight(), connection.capacity());
            let with_room = order.filter_map(Member::open).filter(|connection| {
                let (taken, capacity) = load(connection);
                taken < capacity
            });
            let best = with_room.min_by(|one, other| {
                let ((taken, capacity), (taken_there, capacity_there)) = (load(one), load(other));
                (taken * capacity_there).cmp(&(taken_there * capacity))
            })?;
            if let Some(seat) = best.seats().take() {
                return Some((best.clone(), seat));
            }
        }
    }
}

impl Members {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, mut member: Member) -> WorkerId {
        let mut state = self.state();
        state.last_id += 1;
        member.id = WorkerId(state.last_id);
        let id = member.id;
        state.members.push(member);
        id
    }

    /// Notes the task that ends with a member.
    pub(crate) fn kept_by(&self, id: WorkerId, keeper: AbortHandle) {
        match self.state().member(id) {
            Some(member) => member.keeper = Some(keeper),
            None => keeper.abort(),
        }
    }

    /// Notes that a worker is connected. `false`: nobody wants it any more.
    pub(crate) fn arrived(self: &Arc<Self>, id: WorkerId, connection: &Connection) -> bool {
        let members = Arc::downgrade(self);
        connection.seats().on_change(move || {
            if let Some(members) = members.upgrade() {
                members.changed();
            }
        });
        let before = {
            let mut state = self.state();
            let Some(member) = state.member(id).filter(|member| !member.retired) else { return false };
            member.trouble = None;
            member.connection.replace(connection.clone())
        };
        // Its end is told to this pool, so the lock must be free.
        drop(before);
        self.changes.send_replace(());
        self.changed();
        true
    }

    /// Notes that a worker is not connected any more. `false`: nobody wants it any more.
    pub(crate) fn left(&self, id: WorkerId, trouble: String) -> bool {
        let mut state = self.state();
        let Some(member) = state.member(id).filter(|member| !member.retired) else { return false };
        let connection = member.connection.take();
        member.trouble = Some(trouble);
        drop(state);
        drop(connection);
        true
    }

    /// The same. Whether that is news.
    pub(crate) fn left_anew(&self, id: WorkerId, trouble: &str) -> bool {
        let known = self.state().member(id).and_then(|member| member.trouble.clone());
        self.left(id, trouble.to_owned()) && known.as_deref() != Some(trouble)
    }

    /// Gives a worker no new requests.
    pub(crate) fn retire(&self, id: WorkerId) -> Option<Connection> {
        let mut state = self.state();
        let member = state.member(id)?;
        member.retired = true;
        member.connection.take()
    }

    pub(crate) fn is_retired(&self, id: WorkerId) -> bool {
        self.state().member(id).is_none_or(|member| member.retired)
    }

    pub(crate) fn remove(&self, id: WorkerId) -> Option<Connection> {
        let mut removed = {
            let mut state = self.state();
            let index = state.members.iter().position(|member| member.id == id)?;
            state.members.remove(index)
        };
        self.changes.send_replace(());
        removed.connection.take()
    }

    pub(crate) fn clear(&self) {
        let members = {
            let mut state = self.state();
            state.queue.clear();
            std::mem::take(&mut state.members)
        };
        drop(members);
        self.changes.send_replace(());
    }

    /// A seat, unless others wait for one.
    pub(crate) fn choose(&self) -> Option<(Connection, Seat)> {
        let mut state = self.state();
        if state.queue.is_empty() { state.choose() } else { None }
    }

    /// A place behind all who wait. `None`: the queue is full.
    pub(crate) fn queue(&self, most: usize) -> Option<oneshot::Receiver<(Connection, Seat)>> {
        let (sender, place) = oneshot::channel();
        {
            let mut state = self.state();
            state.queue.retain(|waiting| !waiting.is_closed());
            if state.queue.len() >= most {
                return None;
            }
            state.queue.push_back(sender);
            self.waiting.store(state.queue.len(), Ordering::SeqCst);
        }
        // A seat may have become free while nobody was known to wait.
        self.changed();
        Some(place)
    }

    /// Gives seats to those who wait.
    fn changed(&self) {
        while self.waiting.load(Ordering::SeqCst) > 0 {
            let mut state = self.state();
            state.queue.retain(|waiting| !waiting.is_closed());
            let seat = if state.queue.is_empty() { None } else { state.choose() };
            let first = if seat.is_some() { state.queue.pop_front() } else { None };
            self.waiting.store(state.queue.len(), Ordering::SeqCst);
            drop(state);
            // What nobody takes comes back here when it is dropped, so no lock may be held.
            let (Some(seat), Some(first)) = (seat, first) else { return };
            first.send(seat).ok();
        }
    }

    pub(crate) fn any_ready(&self) -> bool {
        self.state().members.iter().any(|member| member.open().is_some())
    }

    pub(crate) async fn until_any_ready(&self) {
        let mut changes = self.changes.subscribe();
        while !self.any_ready() && changes.changed().await.is_ok() {}
    }

    pub(crate) async fn until_ready(&self, id: WorkerId) -> bool {
        let mut changes = self.changes.subscribe();
        loop {
            match self.state().member(id) {
                None => return false,
                Some(member) if member.open().is_some() => return true,
                Some(_) => {}
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(crate) fn status(&self) -> Vec<WorkerStatus> {
        let state = self.state();
        let status = state.members.iter().map(|member| WorkerStatus {
            id: member.id,
            path: match &member.place {
                Place::Socket(path) => Some(path.clone()),
                Place::Stream => None,
            },
            ready: member.open().is_some(),
            in_flight: member.connection.as_ref().map_or(0, Connection::in_flight),
            capacity: member.connection.as_ref().map_or(0, Connection::capacity),
            trouble: member.trouble.clone(),
        });
        status.collect()
    }
}
