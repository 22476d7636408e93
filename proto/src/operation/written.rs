//! The slots that writes leave behind in one shard.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::delta::Products;
use crate::id::Sku;
use crate::product::Product;

/// Products up to which they are a plain list: most requests touch one of a shard, and a tree's node has room for many.
const FEW: usize = 32;

/// Products in SKU order, each with the slots that were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    few: Products,
    /// All of them, once they are more than a few.
    many: BTreeMap<Sku, Product>,
}

impl Written {
    /// The slots of one product.
    pub fn get(&self, sku: &Sku) -> Option<&Product> {
        match self.few.binary_search_by(|(known, _)| known.cmp(sku)) {
            Ok(index) => self.few.get(index).map(|(_, product)| product),
            Err(_) => self.many.get(sku),
        }
    }

    /// Joins slots of a product in.
    pub fn absorb(&mut self, sku: &Sku, slots: &Product) {
        if !self.many.is_empty() {
            return self.many.entry(sku.clone()).or_default().absorb(slots);
        }
        match self.few.binary_search_by(|(known, _)| known.cmp(sku)) {
            Ok(index) => {
                if let Some((_, product)) = self.few.get_mut(index) {
                    product.absorb(slots);
                }
            }
            Err(index) => {
                if self.few.is_empty() {
                    self.few.reserve_exact(1);
                }
                self.few.insert(index, (sku.clone(), slots.clone()));
                if self.few.len() > FEW {
                    self.many = std::mem::take(&mut self.few).into_iter().collect();
                }
            }
        }
    }

    /// The products, in SKU order.
    pub fn iter(&self) -> impl Iterator<Item = (&Sku, &Product)> {
        self.few.iter().map(|(sku, product)| (sku, product)).chain(&self.many)
    }

    /// The products as a list, without a copy where they are few.
    pub fn as_products(&self) -> Cow<'_, [(Sku, Product)]> {
        if self.many.is_empty() {
            return Cow::Borrowed(&self.few);
        }
        self.many.iter().map(|(sku, product)| (sku.clone(), product.clone())).collect()
    }

    /// The products as a list.
    pub fn into_products(mut self) -> Products {
        self.few.extend(self.many);
        self.few
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Stamp;
    use crate::id::{Dot, ReplicaId};
    use crate::register::Register;

    fn listed(sequence: u64) -> Product {
        let dot = Dot { replica: ReplicaId::from_random(1), sequence };
        Product::of_listed(Register { value: true, stamp: Stamp::from_bits(sequence), dot })
    }

    /// Few or many, in whatever order they come: a sorted list with each product once, with all its slots.
    #[test]
    fn it_is_a_sorted_list_of_joined_products() {
        for count in [0, 1, 2, 31, 32, 33, 34, 100] {
            let (mut written, mut plain) = (Written::default(), BTreeMap::<Sku, Product>::new());
            for step in 0..3 * count {
                let sku = Sku::new(&format!("{:03}", step * 37 % count)).unwrap();
                written.absorb(&sku, &listed(step));
                plain.entry(sku).or_default().absorb(&listed(step));
            }
            assert!(plain.iter().all(|(sku, product)| written.get(sku) == Some(product)), "{count}");
            assert_eq!(written.get(&Sku::new("none").unwrap()), None);
            assert!(written.iter().eq(&plain), "{count}");
            assert_eq!(*written.as_products(), *plain.clone().into_iter().collect::<Vec<_>>(), "{count}");
            assert_eq!(written.into_products(), plain.into_iter().collect::<Vec<_>>(), "{count}");
        }
    }
}
