//! One connection: greeting, then requests, each from the process that connected and within its deadline.

use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
};
use zen_lock::{
    Greeting, NONCE_BYTES, Nonce, REPLY_HEAD_BYTES, REQUEST_BYTES_MAX, REQUEST_HEAD_BYTES, Refusal,
    ReplyHead, Request, WireError,
};
use zeroize::Zeroizing;

use super::caller::{Caller, Credentials};
use super::service::Service;
use crate::policy::Identity;
use crate::receipts::Verdict;

/// How long a connection may be silent between requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request may take from its first byte to its last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a caller may take to take an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection ends.
enum End {
    /// The caller is done, or silent.
    Closed,
    /// It broke the protocol.
    Broken(Verdict, String),
    /// The system.
    Io(io::Error),
}

/// Serves a connection until it ends; whatever went wrong has its receipt.
pub fn serve(mut stream: UnixStream, credentials: Credentials, service: &Service) {
    let (caller, first) = match look(&stream, credentials) {
        Ok(found) => found,
        Err(reason) => {
            let _ = service.refuse((credentials, None), Verdict::Changed, reason);
            return;
        }
    };
    let end = talk(&mut stream, &caller, &first, service);
    let (verdict, reason) = match end {
        Ok(()) | Err(End::Closed) => return,
        Err(End::Io(error)) => return tracing::debug!(%error, "a connection ended"),
        Err(End::Broken(verdict, reason)) => (verdict, reason),
    };
    let _ = service.refuse((credentials, Some(&first)), verdict, reason);
    let _ = stream.write_all(&ReplyHead::Refused(Refusal::Malformed).encode());
}

/// Says why there is no place, and no more.
pub fn turn_away(mut stream: UnixStream, refusal: Refusal) {
    let _ = stream.set_write_timeout(Some(ANSWER_TIMEOUT));
    let _ = stream.write_all(&Greeting { nonce: [0; NONCE_BYTES] }.encode());
    let _ = stream.write_all(&ReplyHead::Refused(refusal).encode());
}

/// Before the greeting: from here on the kernel names the writer of each byte.
fn look(stream: &UnixStream, credentials: Credentials) -> Result<(Caller, Identity), String> {
    let failed = |error: io::Error| error.to_string();
    setsockopt(stream, PassCred, &true).map_err(|errno| failed(errno.into()))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
    let caller = Caller::hold(credentials).map_err(|error| error.to_string())?;
    let first = caller.look().map_err(|error| error.to_string())?;
    Ok((caller, first))
}

fn talk(stream: &mut UnixStream, caller: &Caller, first: &Identity, service: &Service) -> Result<(), End> {
    let mut nonce: Nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| End::Io(io::Error::other(error)))?;
    stream.write_all(&Greeting { nonce }.encode()).map_err(End::Io)?;
    loop {
        let request = receive(stream, caller.credentials)?;
        if request.nonce != nonce {
            return Err(End::Broken(Verdict::Malformed, "the nonce of another connection".to_owned()));
        }
        let begun = Instant::now();
        let answer = service.answer(caller, first, &request.name);
        service.metrics.answered(begun.elapsed());
        let head = match &answer {
            Ok(value) => ReplyHead::Value(value.len()),
            Err(refusal) => ReplyHead::Refused(*refusal),
        };
        let value = answer.as_ref().map_or(&[][..], |value| value);
        let mut reply = Zeroizing::new(Vec::with_capacity(REPLY_HEAD_BYTES + value.len()));
        reply.extend(head.encode());
        reply.extend(value);
        stream.write_all(&reply).map_err(End::Io)?;
    }
}

fn receive(stream: &UnixStream, caller: Credentials) -> Result<Request, End> {
    let mut head = [0; REQUEST_HEAD_BYTES];
    let first = receive_some(stream, &mut head[..1], caller, Instant::now() + IDLE_TIMEOUT);
    match first {
        Ok(0) | Err(End::Io(_)) => return Err(End::Closed),
        first => first?,
    };
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    receive_all(stream, &mut head[1..], caller, deadline)?;
    let length = Request::decode_head(head)?;
    let mut body = [0; REQUEST_BYTES_MAX];
    let body = &mut body[..length];
    receive_all(stream, body, caller, deadline)?;
    Ok(Request::decode(body)?)
}

fn receive_all(
    stream: &UnixStream,
    mut to: &mut [u8],
    caller: Credentials,
    deadline: Instant,
) -> Result<(), End> {
    while !to.is_empty() {
        let broken = |reason: &str| Err(End::Broken(Verdict::Malformed, reason.to_owned()));
        match receive_some(stream, to, caller, deadline) {
            Ok(0) => return broken("the request was cut off"),
            Ok(length) => to = &mut to[length..],
            Err(End::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return broken("the request did not come to an end");
            }
            Err(end) => return Err(end),
        }
    }
    Ok(())
}

/// What one write of the caller brought; whoever else wrote it has stolen the socket.
fn receive_some(
    stream: &UnixStream,
    to: &mut [u8],
    caller: Credentials,
    deadline: Instant,
) -> Result<usize, End> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ready, timeout) {
        Ok(0) => return Err(End::Io(io::ErrorKind::TimedOut.into())),
        Ok(_) => {}
        Err(Errno::EINTR) => return receive_some(stream, to, caller, deadline),
        Err(errno) => return Err(End::Io(errno.into())),
    }
    // Room for credentials alone: descriptors that somebody sends along are closed by the kernel.
    let mut control = cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(to)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), flags);
    let received = received.map_err(|errno| End::Io(errno.into()))?;
    if received.bytes == 0 {
        return Ok(0);
    }
    let writer = received.cmsgs().into_iter().flatten().find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(writer) => Some(writer),
        _ => None,
    });
    let writer = writer.map(|writer| Credentials { pid: writer.pid(), uid: writer.uid(), gid: writer.gid() });
    if writer != Some(caller) {
        let by =
            writer.map_or(String::new(), |writer| format!(" by process {}, user {}", writer.pid, writer.uid));
        return Err(End::Broken(Verdict::Stolen, format!("it was written{by}, who did not connect")));
    }
    Ok(received.bytes)
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Broken(Verdict::Malformed, error.to_string())
    }
}
