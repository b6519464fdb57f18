//! The life of a preloader: a process that has loaded a program, and from which those that serve are forked.
//!
//! It has one thread and no runtime, since threads do not survive a fork. What it forks is forked twice, so that it loses
//! its parent and is given to the supervisor, which has asked the system for that (`PR_SET_CHILD_SUBREAPER`).

use std::io::{self, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;

use crate::child::{Child, Reporter, read};
use crate::descriptors::{CHANNEL, Descriptors, FORKS, STDERR, STDOUT};
use crate::preload::MOST_DESCRIPTORS;
use crate::wire::{Order, Report, Wish};

/// The longest wish, in bytes.
const MOST_WISH: usize = 4096;

/// The process as whoever has loaded something in it knows it.
pub trait Forker {
    /// Why it cannot be forked as it is, for a person. Asked before each fork.
    ///
    /// # Errors
    /// The reason.
    fn check(&mut self) -> Result<(), String>;

    /// As fork(2), with whatever what is loaded wants to be done before and after: 0 in the new process, whose
    /// number in the old one.
    ///
    /// # Errors
    /// When the system refuses.
    fn fork(&mut self) -> io::Result<i32>;

    /// Takes an order that is not about forking.
    fn told(&mut self, order: Order);
}

/// Makes this process end with its supervisor, whatever it does at that moment: a preloader has no thread that would
/// notice. To be called before anything is loaded.
///
/// # Errors
/// When the supervisor is gone already, or the system refuses.
pub fn end_with_supervisor() -> io::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != parent {
        return Err(io::Error::other("the supervisor is gone"));
    }
    Ok(())
}

/// Says that everything is loaded, and forks a process each time the supervisor wants one. Comes back in each of these, as
/// a process of the pool; the preloader itself ends here, without anything that is registered for the end of a
/// program. To be called while the process has one thread.
///
/// # Errors
/// When this is no preloader, or in a new process that cannot take its place.
pub fn fork_workers(child: Child, forker: &mut dyn Forker) -> io::Result<Child> {
    let (channel, mut descriptors, reporter) = child.into_parts()?;
    let forks =
        descriptors.take(FORKS).ok_or_else(|| io::Error::other("nobody can ask this process to fork"))?;
    let mut preloader = Preloader { channel, forks, reporter };
    preloader.reporter.say(&Report::Preloaded);
    match preloader.work(forker) {
        Ok(given) => {
            // The supervisor is to see when the preloader ends.
            drop(preloader);
            begin(given, descriptors)
        }
        Err(error) => {
            let Some(error) = error else { exit(0) };
            preloader.reporter.failed(error.to_string());
            exit(1)
        }
    }
}

struct Preloader {
    channel: BufReader<UnixStream>,
    forks: OwnedFd,
    reporter: Reporter,
}

impl Preloader {
    /// Comes back in a new process, with what that is given; in the preloader with why it ends, if that is worth a word.
    fn work(&mut self, forker: &mut dyn Forker) -> Result<Descriptors, Option<io::Error>> {
        loop {
            let (speaks, wishes) = self.wait()?;
            if speaks {
                match read(&mut self.channel)? {
                    Some(Order::Stop | Order::Drain { .. }) | None => return Err(None),
                    Some(order) => forker.told(order),
                }
            }
            if !wishes {
                continue;
            }
            let Some((process, given)) = self.wish()? else { return Err(None) };
            let forked = forker.check().and_then(|()| {
                fork_twice(forker).map_err(|error| format!("the process cannot be forked: {error}"))
            });
            match forked {
                Ok(None) => return Ok(given),
                Ok(Some(pid)) => self.reporter.say(&Report::Forked { process, pid }),
                Err(message) => self.reporter.say(&Report::NotForked { process, message }),
            }
        }
    }

    /// Waits for a word of the supervisor, or a wish.
    fn wait(&self) -> io::Result<(bool, bool)> {
        if self.channel.buffer().contains(&b'\n') {
            return Ok((true, false));
        }
        let mut both =
            [PollFd::new(self.channel.get_ref(), PollFlags::IN), PollFd::new(&self.forks, PollFlags::IN)];
        loop {
            match poll(&mut both, None) {
                Ok(_) => return Ok((!both[0].revents().is_empty(), !both[1].revents().is_empty())),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next wish, as the number of the process and what it is given; none when there will be no more.
    fn wish(&self) -> io::Result<Option<(u64, Descriptors)>> {
        let mut text = [0; MOST_WISH];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut text)];
        let length = recvmsg(&self.forks, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let mut rights = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                rights.extend(given);
            }
        }
        let text = text.get(..length).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let wish: Wish = serde_json::from_slice(text)?;
        if rights.len() != wish.descriptors.len() {
            return Err(io::Error::other("a process was asked for without its descriptors"));
        }
        let mut given = Descriptors::new();
        for (name, descriptor) in wish.descriptors.into_iter().zip(rights) {
            given.insert(name, descriptor);
        }
        Ok(Some((wish.process, given)))
    }
}

/// Takes the place of a process of the pool.
fn begin(mut given: Descriptors, descriptors: Descriptors) -> io::Result<Child> {
    rustix::process::setpgid(None, None)?;
    if let Some(stdout) = given.take(STDOUT) {
        rustix::stdio::dup2_stdout(stdout)?;
    }
    if let Some(stderr) = given.take(STDERR) {
        rustix::stdio::dup2_stderr(stderr)?;
    }
    let channel = given.take(CHANNEL).ok_or_else(|| io::Error::other("it was forked without a channel"))?;
    Child::with_channel(channel.into(), descriptors)
}

/// Forks a process that has no parent here. None in the new one; its number in the old one.
fn fork_twice(forker: &mut dyn Forker) -> io::Result<Option<i32>> {
    let (mut told, mut tell) = io::pipe()?;
    // SAFETY: this process has one thread (`Forker::check`), so the new one may do whatever this one may.
    #[allow(unsafe_code)]
    let between = unsafe { nix::unistd::fork() }?;
    match between {
        // Nothing of what is loaded hears of this first fork: the second one is the one that counts.
        ForkResult::Child => {
            let answer = match forker.fork() {
                Ok(0) => return Ok(None),
                Ok(pid) => i64::from(pid),
                Err(error) => -i64::from(error.raw_os_error().unwrap_or(Errno::AGAIN.raw_os_error())),
            };
            let _ = tell.write_all(&answer.to_ne_bytes());
            exit(0)
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let mut answer = [0; 8];
            let heard = told.read_exact(&mut answer);
            // Once it is gone the new process is the supervisor's.
            while nix::sys::wait::waitpid(child, None) == Err(nix::Error::EINTR) {}
            heard.map_err(|_| io::Error::other("the process between the two ended before it had forked"))?;
            let answer = i64::from_ne_bytes(answer);
            match i32::try_from(answer) {
                Ok(pid) if pid > 0 => Ok(Some(pid)),
                Ok(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
                Err(_) => Err(io::Error::other("the process between the two said nonsense")),
            }
        }
    }
}

/// Ends this process here and now: nothing that is registered for the end of a program is done.
fn exit(code: i32) -> ! {
    // SAFETY: it does not come back, and nothing of this process is touched after it.
    #[allow(unsafe_code)]
    unsafe {
        nix::libc::_exit(code)
    }
}
