//! Messages of DNS (RFC 1035): what is asked, and which addresses are answered. Both come from
//! others: questions from clients, answers from whoever was asked.

use std::net::Ipv4Addr;

use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag, RCODE};

/// So many addresses of one answer count.
const MAX_ADDRESSES: usize = 64;

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// The name that is asked for, without a dot at its end.
    pub name: String,
}

/// The one question of a message. Anything else is not answered.
pub fn question(untrusted_message: &[u8]) -> Option<Question> {
    let packet = Packet::parse(untrusted_message).ok()?;
    if packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let [question] = packet.questions.as_slice() else {
        return None;
    };
    let mut labels = Vec::new();
    for label in question.qname.iter() {
        let text = std::str::from_utf8(label.as_ref()).ok()?;
        // A dot within a label would look like one between two.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_plain) {
            return None;
        }
        labels.push(text);
    }
    Some(Question {
        name: labels.join("."),
    })
}

/// Says that a question is not answered here.
pub fn refusal(untrusted_question: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::parse(untrusted_question).ok()?;
    let mut reply = Packet::new_reply(packet.id());
    reply.questions = packet.questions;
    *reply.rcode_mut() = RCODE::Refused;
    reply.build_bytes_vec().ok()
}

/// The addresses in an answer to this question, and for how many seconds they count.
pub fn addresses(untrusted_answer: &[u8]) -> Vec<(Ipv4Addr, u32)> {
    let Ok(packet) = Packet::parse(untrusted_answer) else {
        return Vec::new();
    };
    let found = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::A(a) => Some((Ipv4Addr::from_bits(a.address), record.ttl)),
            _ => None,
        });
    found.take(MAX_ADDRESSES).collect()
}

/// Whether a message is an answer to this question.
pub fn answers(untrusted_answer: &[u8], question: &[u8]) -> bool {
    let (Ok(answer), Ok(question)) = (Packet::parse(untrusted_answer), Packet::parse(question))
    else {
        return false;
    };
    let asked = |packet: &Packet<'_>| {
        let questions = packet.questions.iter();
        questions
            .map(|question| question.qname.to_string().to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    answer.has_flags(PacketFlag::RESPONSE)
        && answer.id() == question.id()
        && asked(&answer) == asked(&question)
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::A;
    use simple_dns::{CLASS, Label, Name, QCLASS, QTYPE, ResourceRecord, TYPE};

    use super::*;

    /// A question as a client asks it.
    fn asking(name: Name<'_>, id: u16) -> Vec<u8> {
        let mut packet = Packet::new_query(id);
        packet.questions.push(simple_dns::Question::new(
            name,
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.build_bytes_vec().unwrap()
    }

    /// An answer to it.
    fn answering(name: &str, id: u16, addresses: &[(&str, u32)]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        packet.questions.push(simple_dns::Question::new(
            Name::new(name).unwrap(),
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        for (address, ttl) in addresses {
            let address = address.parse::<Ipv4Addr>().unwrap().to_bits();
            packet.answers.push(ResourceRecord::new(
                Name::new("other.org").unwrap(),
                CLASS::IN,
                *ttl,
                RData::A(A { address }),
            ));
        }
        packet.build_bytes_vec().unwrap()
    }

    fn name(text: &str) -> Name<'_> {
        Name::new(text).unwrap()
    }

    #[test]
    fn one_plain_question_is_understood() {
        let asked = question(&asking(name("Files.Example.org"), 7)).unwrap();
        assert_eq!(asked.name, "Files.Example.org");
        assert!(question(&asking(name("_sip._tcp.a.org"), 7)).is_some());
        // A label with a dot in it.
        let odd = [Label::new(&b"a.example.org"[..]).unwrap()];
        assert_eq!(question(&asking(Name::new_with_labels(&odd), 7)), None);
        let odd = [
            Label::new(&b"a\0"[..]).unwrap(),
            Label::new(&b"org"[..]).unwrap(),
        ];
        assert_eq!(question(&asking(Name::new_with_labels(&odd), 7)), None);
        assert_eq!(question(&answering("a.org", 7, &[])), None);
        assert_eq!(question(b""), None);
        let one = asking(name("a.org"), 7);
        let mut two = Packet::parse(&one).unwrap();
        two.questions.push(two.questions[0].clone());
        assert_eq!(question(&two.build_bytes_vec().unwrap()), None);
    }

    #[test]
    fn a_refusal_names_the_question() {
        let asked = asking(name("a.org"), 7);
        let refused = refusal(&asked).unwrap();
        assert!(answers(&refused, &asked));
        let refused = Packet::parse(&refused).unwrap();
        assert_eq!((refused.id(), refused.rcode()), (7, RCODE::Refused));
    }

    #[test]
    fn answers_belong_to_their_questions() {
        let asked = asking(name("a.org"), 7);
        let answer = answering("A.org", 7, &[("192.0.2.1", 60), ("192.0.2.2", 0)]);
        assert!(answers(&answer, &asked));
        assert!(!answers(&answering("b.org", 7, &[]), &asked));
        assert!(!answers(&answering("a.org", 8, &[]), &asked));
        assert!(!answers(&asked, &asked) && !answers(b"", &asked));
        let found = addresses(&answer);
        assert_eq!(
            found,
            [([192, 0, 2, 1].into(), 60), ([192, 0, 2, 2].into(), 0)]
        );
    }

    #[test]
    fn nothing_that_arrives_makes_it_panic() {
        let messages = [
            asking(name("files.example.org"), 7),
            answering(
                "files.example.org",
                7,
                &[("192.0.2.1", 60), ("192.0.2.2", 0)],
            ),
        ];
        for message in &messages {
            for at in 0..message.len() {
                for byte in [0, 1, 0x0c, 0x3f, 0x40, 0xc0, 0xff] {
                    let mut changed = message.clone();
                    changed[at] = byte;
                    for end in [at, changed.len()] {
                        let changed = &changed[..end];
                        let _ = (question(changed), refusal(changed), addresses(changed));
                        let _ = answers(changed, message);
                    }
                }
            }
        }
    }
}
