//! A program that wants to take this one's place is tried out: it has to read the state, say so, and end well.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::CommandFdExt;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::handle::Failure;
use crate::launch::surround;
use crate::plan::Program;
use crate::upgrade::VARIABLE;

/// Set where the state is to be read on trial only.
pub(crate) const TRIAL: &str = "HAWKSBILL_RESUME_TRIAL";

/// What a program says that has read the state on trial.
pub(crate) const APPROVAL: &str = "hawksbill resumes";

/// How long it may take to say that, and then to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A program on trial. The trial is over before the supervisor is, and before another one begins.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) program: Program,
    pub(crate) note: Value,
    pub(crate) reply: Option<oneshot::Sender<Failure>>,
    /// Whether it may take over.
    pub(crate) passed: bool,
    /// The program is killed when this is dropped.
    pub(crate) cancel: Option<oneshot::Sender<()>>,
}

impl Trial {
    /// Tells who wanted it that nothing comes of it.
    pub(crate) fn answer(&mut self, failure: Failure) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(failure);
        }
    }

    /// Ends it. It is over when the program is gone.
    pub(crate) fn cancel(&mut self, failure: Failure) {
        self.cancel = None;
        self.answer(failure);
    }
}

/// Starts a program that finds the state in this file.
pub(crate) fn try_out(program: &Program, file: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    surround(&mut command, program);
    command.env(VARIABLE, file.as_raw_fd().to_string()).env(TRIAL, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.preserved_fds(vec![file]);
    command.spawn()
}

/// Waits for what comes of it, and until it is gone.
pub(crate) async fn watch(mut child: Child, mut cancelled: oneshot::Receiver<()>) -> io::Result<()> {
    let (said, complained) = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
    let listening = async { tokio::try_join!(read_all(said), read_all(complained)) };
    let heard = tokio::select! {
        heard = timeout(PATIENCE, listening) => heard.ok(),
        _ = &mut cancelled => None,
    };
    let in_time = heard.is_some();
    // What has closed its standard output is about to end.
    let patience = if in_time { PATIENCE } else { Duration::ZERO };
    let status = ended(&mut child, patience, cancelled).await?;
    let (said, complained) = heard.transpose()?.unwrap_or_default();
    let approved = said.lines().any(|line| line.trim_end().ends_with(APPROVAL));
    match (in_time, status.success() && approved) {
        (true, true) => Ok(()),
        (true, false) => {
            let complained = complained.trim_end();
            let before = if complained.is_empty() { "" } else { ":\n" };
            Err(io::Error::other(format!("on trial it ended with {status}{before}{complained}")))
        }
        (false, _) => Err(io::Error::other("on trial it said nothing in time")),
    }
}

/// Waits for its end, and hastens it when the time is up. Nobody else takes its status.
async fn ended(
    child: &mut Child,
    patience: Duration,
    mut cancelled: oneshot::Receiver<()>,
) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        // An error: it was given up.
        let given_up = !matches!(cancelled.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if (given_up || Instant::now() >= deadline)
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        sleep(LOOK).await;
    }
}

/// What comes out of a pipe until its end; of much only the beginning.
async fn read_all(pipe: Option<OwnedFd>) -> io::Result<String> {
    const MOST: u64 = 64 << 10;
    let pipe = pipe.ok_or_else(|| io::Error::other("it has no standard streams"))?;
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    let mut text = Vec::new();
    AsyncReadExt::take(&mut pipe, MOST).read_to_end(&mut text).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Why it does not take over.
pub(crate) fn unfit(error: &io::Error) -> Failure {
    Failure::new(format!("the new program does not take over: {error}"))
}
