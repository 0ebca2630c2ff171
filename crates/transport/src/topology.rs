//! Which queues there are, declared alike by orchestrators and participants.
//!
//! Must hold: the list depends on nothing but the participants' names, so that processes that never met declare the
//! same.

use crate::Queue;

/// The queues for these participants and the replies, each once, in a fixed order.
pub fn queues<N: Into<String>>(participants: impl IntoIterator<Item = N>) -> Vec<Queue> {
    let mut queues: Vec<Queue> = participants.into_iter().map(|name| Queue::Participant(name.into())).collect();
    queues.push(Queue::Replies);
    queues.sort();
    queues.dedup();
    queues
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_same_in_whatever_order_participants_are_named() {
        let expected = ["bookend.booking", "bookend.payment", "bookend.replies"];
        for names in [vec!["payment", "booking"], vec!["booking", "payment", "booking"]] {
            assert_eq!(queues(names).iter().map(Queue::name).collect::<Vec<_>>(), expected);
        }
    }
}
