//! Which queues there are, declared alike by orchestrators and participants.
//!
//! Must hold: the list depends on nothing but the participants' names, so that processes that never met declare the
//! same. A message's routing key is its queue's name; what it asks for is not in the key, because a batch may carry
//! commands to execute and to compensate side by side.

use crate::Queue;

/// The queues for these participants, the replies and the dead letters, each once, in a fixed order. A participant with
/// the name of another queue has none.
pub fn queues<N: Into<String>>(participants: impl IntoIterator<Item = N>) -> Vec<Queue> {
    let named = |name: N| Queue::named(&Queue::Participant(name.into()).name());
    let mut queues: Vec<Queue> = participants.into_iter().filter_map(named).collect();
    queues.extend([Queue::Replies, Queue::DeadLetters]);
    queues.sort();
    queues.dedup();
    queues
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_found_by_its_name() {
        for queue in queues(["booking"]) {
            assert_eq!(Queue::named(&queue.name()), Some(queue));
        }
        assert_eq!(Queue::named("bookend."), None);
        assert_eq!(Queue::named("booking"), None);
    }

    #[test]
    fn the_list_is_the_same_in_whatever_order_participants_are_named() {
        let expected = ["bookend.booking", "bookend.payment", "bookend.replies", "bookend.dead"];
        for names in [vec!["payment", "booking"], vec!["booking", "payment", "booking", "dead", "replies"]] {
            assert_eq!(queues(names).iter().map(Queue::name).collect::<Vec<_>>(), expected);
        }
    }
}
