//! The encoding of a list of products (byte table in `PROTOCOL.md`, section 6.2).
//!
//! Locations and replicas are listed once and referred to by number, so that a slot costs its counters and little
//! else. Orders are strict, so that what is read needs no sorting. What is written has one encoding; a reader
//! takes any width of integers and any order of names.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bounded;
use crate::counter::Counters;
use crate::delta::Products;
use crate::hlc::Stamp;
use crate::id::{Dot, Location, ReplicaId, Sku};
use crate::limits::{CHUNK_PRODUCTS_MAX, GRANT_SLOTS_MAX, INHERITANCE_SLOTS_MAX, STOCK_SLOTS_MAX};
use crate::price::Price;
use crate::product::{GrantSlot, InheritanceSlot, Product, StockSlot, Taken};
use crate::register::Register;

/// Names up to which a list is searched in order: the replicas and locations of most clusters.
const SEARCHED_MAX: usize = 16;

/// Names and their numbers, in the order of first use. Few names are searched in order, which is fastest; more go by a
/// tree, so that a delta of many names that a peer sent costs no time in their square when it is sent on.
struct Numbered<T> {
    names: Vec<T>,
    /// The numbers of the names beyond the first [`SEARCHED_MAX`].
    numbers: BTreeMap<T, usize>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { names: Vec::new(), numbers: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Numbered<T> {
    fn note(&mut self, name: &T) {
        if self.position(name).is_none() {
            if self.names.len() >= SEARCHED_MAX {
                self.numbers.insert(name.clone(), self.names.len());
            }
            self.names.push(name.clone());
        }
    }

    fn position(&self, name: &T) -> Option<usize> {
        let searched = self.names.iter().take(SEARCHED_MAX).position(|candidate| candidate == name);
        searched.or_else(|| self.numbers.get(name).copied())
    }

    fn number(&self, name: &T) -> u32 {
        self.position(name).and_then(|position| u32::try_from(position).ok()).unwrap_or(u32::MAX)
    }
}

/// The names that a list of products refers to by number.
#[derive(Default)]
pub(super) struct Names {
    locations: Numbered<Location>,
    replicas: Numbered<ReplicaId>,
}

impl Names {
    pub(super) fn of<'a>(products: impl IntoIterator<Item = &'a (Sku, Product)>) -> Self {
        let mut names = Self::default();
        for (_, product) in products {
            for slot in product.stock() {
                names.locations.note(&slot.location);
                names.replicas.note(&slot.replica);
            }
            for slot in product.grants() {
                names.locations.note(&slot.location);
                names.replicas.note(&slot.from);
                names.replicas.note(&slot.to);
            }
            let registers = product.price().map(|price| price.dot).into_iter();
            for dot in registers.chain(product.listed().map(|listed| listed.dot)) {
                names.replicas.note(&dot.replica);
            }
            for slot in product.inheritances() {
                names.locations.note(&slot.location);
                names.replicas.note(&slot.from);
                names.replicas.note(&slot.to);
            }
        }
        names
    }

    pub(super) fn locations(&self) -> &[Location] {
        &self.locations.names
    }

    pub(super) fn replicas(&self) -> &[ReplicaId] {
        &self.replicas.names
    }

    fn location(&self, location: &Location) -> u32 {
        self.locations.number(location)
    }

    fn replica(&self, replica: ReplicaId) -> u32 {
        self.replicas.number(&replica)
    }
}

type StockTuple = (u32, u32, u64, u64, u64, u64, u64);
type GrantTuple = (u32, u32, u32, u64, u64);
type PriceTuple<'a> = (u32, u64, u64, u64, u8, std::borrow::Cow<'a, str>);
type ListedTuple = (u32, u64, u64, bool);
type InheritanceTuple = (u32, u32, u32, u64, u64, u64, u64, u64, bool);

struct ProductOut<'a>(&'a Names, &'a Sku, &'a Product);

impl Serialize for ProductOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(names, sku, product) = self;
        let stock = ListOut(product.stock(), |slot: &StockSlot| -> StockTuple {
            let counters = slot.counters;
            let Counters { added, removed, held, released } = counters;
            let (location, replica) = (names.location(&slot.location), names.replica(slot.replica));
            (location, replica, slot.sequence, added, removed, held, released)
        });
        let grants = ListOut(product.grants(), |slot: &GrantSlot| -> GrantTuple {
            let (from, to) = (names.replica(slot.from), names.replica(slot.to));
            (names.location(&slot.location), from, to, slot.sequence, slot.units)
        });
        let price = product.price().map(|register| -> PriceTuple<'_> {
            let (dot, price) = (register.dot, register.value);
            let replica = names.replica(dot.replica);
            let code = price.currency().code().into();
            (replica, dot.sequence, register.stamp.bits(), price.units(), price.scale(), code)
        });
        let listed = product.listed().map(|register| -> ListedTuple {
            let replica = names.replica(register.dot.replica);
            (replica, register.dot.sequence, register.stamp.bits(), register.value)
        });
        // Most products have no inheritance, and are written as they were before there was any.
        let has_inheritances = !product.inheritances().is_empty();
        let mut tuple = serializer.serialize_tuple(5 + usize::from(has_inheritances))?;
        tuple.serialize_element(sku)?;
        tuple.serialize_element(&stock)?;
        tuple.serialize_element(&grants)?;
        tuple.serialize_element(&price)?;
        tuple.serialize_element(&listed)?;
        if has_inheritances {
            tuple.serialize_element(&ListOut(
                product.inheritances(),
                |slot: &InheritanceSlot| -> InheritanceTuple {
                    let Taken { added, removed, rights, owed, is_heir } = slot.taken;
                    let (location, from, to) =
                        (names.location(&slot.location), names.replica(slot.from), names.replica(slot.to));
                    (location, from, to, slot.sequence, added, removed, rights, owed, is_heir)
                },
            ))?;
        }
        tuple.end()
    }
}

/// A list that is turned into its wire form element by element, without a copy of the whole.
struct ListOut<'a, T, F>(&'a [T], F);

impl<T, U: Serialize, F: Fn(&T) -> U> Serialize for ListOut<'_, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(&self.1))
    }
}

/// For `#[serde(with)]`: writes a list of products.
pub(super) fn serialize<S: Serializer>(products: &[(Sku, Product)], serializer: S) -> Result<S::Ok, S::Error> {
    if products.len() > CHUNK_PRODUCTS_MAX {
        return Err(S::Error::custom("too many products for one list"));
    }
    let names = Names::of(products);
    let mut tuple = serializer.serialize_tuple(3)?;
    tuple.serialize_element(names.locations())?;
    tuple.serialize_element(names.replicas())?;
    tuple.serialize_element(&ProductsOut(&names, products))?;
    tuple.end()
}

/// A list of products that refer to names which are written elsewhere.
pub(super) struct ProductsOut<'a>(pub(super) &'a Names, pub(super) &'a [(Sku, Product)]);

impl Serialize for ProductsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.1.iter().map(|(sku, product)| ProductOut(self.0, sku, product)))
    }
}

#[derive(Deserialize)]
struct ProductsIn(
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNK_PRODUCTS_MAX>")] Vec<Location>,
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNK_PRODUCTS_MAX>")] Vec<ReplicaId>,
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNK_PRODUCTS_MAX>")] Vec<ProductIn>,
);

/// A product that refers to names which are read elsewhere.
#[derive(Deserialize)]
pub(super) struct ProductIn(
    Sku,
    #[serde(deserialize_with = "bounded::list::<_, _, STOCK_SLOTS_MAX>")] Vec<StockTuple>,
    #[serde(deserialize_with = "bounded::list::<_, _, GRANT_SLOTS_MAX>")] Vec<GrantTuple>,
    Option<PriceTuple<'static>>,
    Option<ListedTuple>,
    #[serde(default, deserialize_with = "inheritances")] Option<Vec<InheritanceTuple>>,
);

/// The list of inheritances, where there is one.
fn inheritances<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<InheritanceTuple>>, D::Error> {
    bounded::list::<_, _, INHERITANCE_SLOTS_MAX>(deserializer).map(Some)
}

/// For `#[serde(with)]`: reads a list of products and checks every rule of section 6.2.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Products, D::Error> {
    let ProductsIn(locations, replicas, read) = ProductsIn::deserialize(deserializer)?;
    NamesIn { locations, replicas }.resolve_all(read).map_err(D::Error::custom)
}

/// The names of a list of products that is being read.
pub(super) struct NamesIn {
    pub(super) locations: Vec<Location>,
    pub(super) replicas: Vec<ReplicaId>,
}

impl NamesIn {
    pub(super) fn resolve_all(&self, read: Vec<ProductIn>) -> Result<Products, &'static str> {
        let mut products = Products::with_capacity(read.len());
        for product in read {
            let (sku, product) = self.resolve(product)?;
            if products.last().is_some_and(|(last, _): &(Sku, Product)| *last >= sku) {
                return Err("products are not in strict SKU order");
            }
            products.push((sku, product));
        }
        Ok(products)
    }

    fn resolve(&self, read: ProductIn) -> Result<(Sku, Product), &'static str> {
        let ProductIn(sku, stock, grants, price, listed, inheritances) = read;
        let stock = stock.into_iter().map(|tuple| self.stock(tuple)).collect::<Result<Vec<_>, _>>()?;
        let grants = grants.into_iter().map(|tuple| self.grant(tuple)).collect::<Result<Vec<_>, _>>()?;
        let price = price.map(|tuple| self.price(tuple)).transpose()?;
        let listed = listed.map(|(replica, sequence, stamp, value)| {
            Ok::<_, &str>(Register { value, stamp: Stamp::from_bits(stamp), dot: self.dot(replica, sequence)? })
        });
        let product = Product::from_slots(stock, grants, price, listed.transpose()?);
        let product = product.ok_or("slots are not in strict order")?;
        let product = match inheritances {
            None => product,
            // A product without any is written without the list, so that it has one written form.
            Some(read) if read.is_empty() => return Err("a list of inheritances is empty"),
            Some(read) => {
                let slots = read.into_iter().map(|tuple| self.inheritance(tuple)).collect::<Result<Vec<_>, _>>()?;
                product.with_inheritances(slots).ok_or("inheritances are not in strict order")?
            }
        };
        if product.is_empty() {
            return Err("a product has no slot");
        }
        Ok((sku, product))
    }

    fn stock(&self, tuple: StockTuple) -> Result<StockSlot, &'static str> {
        let (location, replica, sequence, added, removed, held, released) = tuple;
        if released > held {
            return Err("more units were released than held");
        }
        let Dot { replica, sequence } = self.dot(replica, sequence)?;
        let counters = Counters { added, removed, held, released };
        Ok(StockSlot { location: self.location_at(location)?, replica, sequence, counters })
    }

    fn grant(&self, (location, from, to, sequence, units): GrantTuple) -> Result<GrantSlot, &'static str> {
        let Dot { replica: from, sequence } = self.dot(from, sequence)?;
        Ok(GrantSlot { location: self.location_at(location)?, from, to: self.replica_at(to)?, sequence, units })
    }

    fn inheritance(&self, tuple: InheritanceTuple) -> Result<InheritanceSlot, &'static str> {
        let (location, from, to, sequence, added, removed, rights, owed, is_heir) = tuple;
        let Dot { replica: to, sequence } = self.dot(to, sequence)?;
        let (location, from) = (self.location_at(location)?, self.replica_at(from)?);
        if from == to {
            return Err("a replica inherits from itself");
        }
        let taken = Taken { added, removed, rights, owed, is_heir };
        Ok(InheritanceSlot { location, from, to, sequence, taken })
    }

    fn price(&self, tuple: PriceTuple<'_>) -> Result<Register<Price>, &'static str> {
        let (replica, sequence, stamp, units, scale, code) = tuple;
        let currency = iso_currency::Currency::from_code(&code).ok_or("the currency is not of ISO 4217")?;
        let value = Price::from_parts(units, scale, currency).map_err(|_| "the price is out of range")?;
        Ok(Register { value, stamp: Stamp::from_bits(stamp), dot: self.dot(replica, sequence)? })
    }

    fn dot(&self, replica: u32, sequence: u64) -> Result<Dot, &'static str> {
        if sequence == 0 {
            return Err("a sequence is zero");
        }
        Ok(Dot { replica: self.replica_at(replica)?, sequence })
    }

    fn location_at(&self, number: u32) -> Result<Location, &'static str> {
        let location = usize::try_from(number).ok().and_then(|number| self.locations.get(number));
        location.cloned().ok_or("a location's number is out of range")
    }

    fn replica_at(&self, number: u32) -> Result<ReplicaId, &'static str> {
        let replica = usize::try_from(number).ok().and_then(|number| self.replicas.get(number));
        replica.copied().ok_or("a replica's number is out of range")
    }
}
