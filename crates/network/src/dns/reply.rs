//! Messages as bytes: their size, what is left out of one that is too large, and what can be said to a request that cannot be read.

use hickory_proto::op::{Edns, Message, ResponseCode};

/// Most bytes of an answer over UDP, whatever a client allows: more would be sent in fragments on some paths, and those get lost
/// (<https://www.dnsflagday.net/2020/>).
pub(super) const MOST_UDP: u16 = 1232;
/// What a client without EDNS takes (RFC 1035, 4.2.1).
const PLAIN_UDP: u16 = 512;
const HEADER: usize = 12;
const TRUNCATED: u8 = 0x02;

/// Most bytes of the answer to a request over UDP.
pub(super) fn udp_limit(edns: Option<&Edns>) -> usize {
    usize::from(edns.map_or(PLAIN_UDP, |edns| edns.max_payload().clamp(PLAIN_UDP, MOST_UDP)))
}

/// A message as bytes, at most `limit` of them. First the additional records go, which nobody needs; then all, and the client is told to come
/// by TCP.
pub(super) fn encode(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let whole = message.to_vec().ok()?;
    if whole.len() <= limit {
        return Some(whole);
    }
    if !message.additionals.is_empty() {
        message.additionals.clear();
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
    }
    message.truncate().to_vec().ok()
}

/// An answer to a request that cannot be read, or that nobody could answer: its header with a code, and its question where `question_end` says
/// that there is one. `None`: there is not even a header, or the request is an answer itself.
pub(super) fn bare(request: &[u8], code: ResponseCode, question_end: Option<usize>) -> Option<Vec<u8>> {
    let header = request.get(..HEADER)?;
    if header[2] & 0x80 != 0 {
        return None;
    }
    let question = question_end.and_then(|end| request.get(HEADER..end));
    let mut bytes = Vec::with_capacity(HEADER + question.map_or(0, <[u8]>::len));
    bytes.extend_from_slice(&header[..2]);
    // QR, with opcode and RD as they came; RA, and the code's low bits.
    bytes.extend_from_slice(&[0x80 | (header[2] & 0x79), 0x80 | code.low()]);
    bytes.extend_from_slice(&[0, u8::from(question.is_some()), 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(question.unwrap_or_default());
    Some(bytes)
}

/// The same with nothing but the word that the answer was too long.
pub(super) fn truncated(request: &[u8], question_end: Option<usize>) -> Option<Vec<u8>> {
    let mut bytes = bare(request, ResponseCode::NoError, question_end)?;
    bytes[2] |= TRUNCATED;
    Some(bytes)
}

/// Whether a message says that it was too long.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Where the only question of a message ends; `None` if there is not exactly one, or it is compressed or cut off.
pub(super) fn question_end(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
        if at - HEADER > 254 {
            return None;
        }
    }
    let end = at + 5;
    (end <= message.len()).then_some(end)
}

/// Whether an answer belongs to a request that was sent with this id: the same question, in whatever case it came back (RFC 5452).
pub(super) fn answers(answer: &[u8], id: [u8; 2], question: &[u8]) -> bool {
    answer.get(..2) == Some(&id)
        && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && question_end(answer).and_then(|end| answer.get(HEADER..end)).is_some_and(|own| own.eq_ignore_ascii_case(question))
}

/// The question of a request, as it stands there.
pub(super) fn question(request: &[u8]) -> Option<&[u8]> {
    request.get(HEADER..question_end(request)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02nS\x05local\x00\x00\x01\x00\x01";

    #[test]
    fn what_cannot_be_answered_keeps_id_and_question() {
        let bytes = bare(REQUEST, ResponseCode::ServFail, question_end(REQUEST)).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!((message.metadata.id, message.metadata.response_code), (0x1234, ResponseCode::ServFail));
        assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
        assert_eq!(message.queries[0].name().to_ascii(), "nS.local.");
        assert!(is_truncated(&truncated(REQUEST, question_end(REQUEST)).unwrap()) && !is_truncated(&bytes));
        assert_eq!(bare(&REQUEST[..11], ResponseCode::FormErr, None), None);
        assert_eq!(bare(&bytes, ResponseCode::FormErr, None), None, "answers are not answered");
    }

    #[test]
    fn an_answer_must_have_the_id_and_the_question() {
        let question = question(REQUEST).unwrap();
        let mut answer = bare(REQUEST, ResponseCode::NoError, question_end(REQUEST)).unwrap();
        assert!(answers(&answer, [0x12, 0x34], question));
        assert!(!answers(&answer, [0x12, 0x35], question));
        assert!(!answers(REQUEST, [0x12, 0x34], question), "a question is no answer");
        answer[13] = b'N';
        assert!(answers(&answer, [0x12, 0x34], question));
        answer[13] = b'm';
        assert!(!answers(&answer, [0x12, 0x34], question));
        assert!(!answers(&answer[..20], [0x12, 0x34], question));
    }
}
