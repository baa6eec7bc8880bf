//! Entries of an index that each stand for several rows of a batch.
//!
//! Each index costs every row an insertion. So the rows of a batch that have the same key of the index, of which the last part is a slot of time, share
//! an entry: that of the row which *leads* them. It has their number, and what the others are found by. The number of these is 0, and the index has
//! only rows with a number above 0. Whoever stores a row by itself, as processes of before do, has an entry for it: that is the default of the columns.
//!
//! A slot is what the first 44 bits of an id tell, 16 ms: enough for a batch, and few to be sorted. The entries are in the order of their slots, so what
//! is read along them is too, and within a slot the ids are sorted.

use std::collections::HashMap;
use std::hash::Hash;

use uuid::Uuid;

/// What a row has of its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// The rows that are found through it, itself included; 0 when another one stands for it.
    pub(crate) rows: i16,
    /// The ids of the others, as the text of an array.
    pub(crate) others: Option<String>,
}

/// Returns the entry of each row, of which a key and an id are given. One stands for `most` rows at most, which have the same key.
pub(crate) fn shared_entries<K: Hash + Eq>(
    rows: impl ExactSizeIterator<Item = (K, Uuid)>,
    most: usize,
) -> Vec<IndexEntry> {
    let mut groups: Vec<Vec<Uuid>> = vec![Vec::new(); rows.len()];
    let mut leaders: HashMap<K, usize> = HashMap::with_capacity(rows.len());
    for (position, (key, id)) in rows.enumerate() {
        let leader = leaders.entry(key).or_insert(position);
        if groups[*leader].len() == most {
            *leader = position;
        }
        groups[*leader].push(id);
    }
    groups.iter().map(|group| IndexEntry::of(group)).collect()
}

impl IndexEntry {
    /// The first one leads.
    fn of(group: &[Uuid]) -> Self {
        let others = group.get(1..).filter(|others| !others.is_empty()).map(|others| {
            let others: Vec<String> = others.iter().map(Uuid::to_string).collect();
            format!("{{{}}}", others.join(","))
        });
        Self { rows: group.len() as i16, others }
    }
}

/// As `id_slot` in the migrations.
pub(crate) fn slot(id: Uuid) -> u128 {
    id.as_u128() >> 84
}
