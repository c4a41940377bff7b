//! The session table as bytes: in a checkpoint, and for its digest.

use std::collections::VecDeque;

use bytes::{Buf, BufMut};

use super::{Executed, NONE, ReplyBytes, Session, SessionTable};
use crate::protocol::types::checksum::Checksum;
use crate::protocol::types::membership::Constants;
use crate::protocol::types::number::{ClientId, OpNumber, Position, RequestNumber, SessionId};

/// Of a reply whose bytes had to go.
const NO_REPLY: u64 = u64::MAX;

impl SessionTable {
    /// The table, little endian, sessions in the order of their last use: equal on replicas that have applied the same ops.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(self.len() as u64);
        let mut at = self.oldest;
        while let Some(session) = self.get(at) {
            session.encode(&mut out);
            at = session.newer;
        }
        out
    }

    /// The table that was written. `None` for bytes that are no table of a cluster with these constants.
    pub(crate) fn decode(mut bytes: &[u8], constants: &Constants) -> Option<SessionTable> {
        let mut table = SessionTable::new(constants.clone());
        let count = bytes.try_get_u64_le().ok().filter(|count| *count <= constants.sessions_max.into())?;
        for _ in 0..count {
            let session = Session::decode(&mut bytes, constants)?;
            let (id, client) = (session.id, session.client);
            if table.by_id.contains_key(&id) || table.by_client.contains_key(&client) {
                return None;
            }
            table.reply_bytes += session.reply_bytes;
            table.slab.push(Some(session));
            let at = (table.slab.len() - 1) as u32;
            table.by_id.insert(id, at);
            table.by_client.insert(client, at);
            table.link_newest(at);
        }
        bytes.is_empty().then_some(table)
    }
}

impl Session {
    fn encode(&self, out: &mut Vec<u8>) {
        let Session { id, client, floor, executed, last_used, .. } = self;
        put_position(out, id.0);
        put_position(out, *last_used);
        out.put_u128_le(client.0);
        out.put_u64_le(floor.0);
        out.put_u64_le(executed.iter().flatten().count() as u64);
        for (index, executed) in executed.iter().enumerate() {
            if let Some(Executed { request, position, reply }) = executed {
                out.put_u64_le(index as u64);
                out.put_u128_le(request.0);
                put_position(out, *position);
                let reply = reply.as_ref().map(ReplyBytes::as_slice);
                out.put_u64_le(reply.map_or(NO_REPLY, |reply| reply.len() as u64));
                out.extend(reply.unwrap_or_default());
            }
        }
    }

    fn decode(bytes: &mut &[u8], constants: &Constants) -> Option<Session> {
        let (id, last_used) = (SessionId(position(bytes)?), position(bytes)?);
        let client = ClientId(bytes.try_get_u128_le().ok()?);
        let floor = RequestNumber(bytes.try_get_u64_le().ok()?);
        let window = u64::from(constants.window);
        let marks = bytes.try_get_u64_le().ok().filter(|marks| *marks <= window)?;
        let (mut executed, mut reply_bytes) = (VecDeque::new(), 0);
        for _ in 0..marks {
            let index = bytes.try_get_u64_le().ok().filter(|index| *index < window)? as usize;
            let request = Checksum(bytes.try_get_u128_le().ok()?);
            let position = position(bytes)?;
            let len = bytes.try_get_u64_le().ok()?;
            let reply = if len == NO_REPLY {
                None
            } else {
                let (reply, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
                *bytes = rest;
                reply_bytes += len;
                Some(ReplyBytes::of(reply))
            };
            if executed.len() > index {
                return None;
            }
            executed.resize(index, None);
            executed.push_back(Some(Executed { request, position, reply }));
        }
        let (older, newer) = (NONE, NONE);
        Some(Session { id, client, floor, executed, reply_bytes, bytes_from: floor, last_used, older, newer })
    }
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    out.put_u64_le(position.op.0);
    out.put_u32_le(position.index);
}

fn position(bytes: &mut &[u8]) -> Option<Position> {
    let op = OpNumber(bytes.try_get_u64_le().ok()?);
    Some(Position { op, index: bytes.try_get_u32_le().ok()? })
}
