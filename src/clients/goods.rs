//! What a client's write is about, and what a question for products finds.

use std::time::Duration;

use stockmesh_proto::wire::client::ProductInfo;
use stockmesh_proto::{InvalidInput, Location, Reference, Sku};

/// A product at a location, with the name under which one write is known, and how long rights may be asked for.
///
/// ```
/// use std::time::Duration;
/// use stockmesh::clients::Goods;
///
/// let goods = Goods::of("MUG-01")?.at("berlin")?.reference("order-7/1")?.deadline(Duration::from_secs(2));
/// assert!(Goods::of("").is_err());
/// # Ok::<(), stockmesh::InvalidInput>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goods {
    pub(super) sku: Sku,
    pub(super) at: Option<Location>,
    pub(super) reference: Option<Reference>,
    pub(super) deadline: Option<Duration>,
}

impl Goods {
    /// A product at the node's home location.
    ///
    /// # Errors
    /// If the SKU is not valid.
    pub fn of(sku: &str) -> Result<Self, InvalidInput> {
        Ok(Self { sku: Sku::new(sku)?, at: None, reference: None, deadline: None })
    }

    /// At another location.
    ///
    /// # Errors
    /// If the location is not valid.
    pub fn at(self, location: &str) -> Result<Self, InvalidInput> {
        Ok(Self { at: Some(Location::new(location)?), ..self })
    }

    /// The caller's own name for one write, see [`Product::reference`](crate::Product::reference): a repetition at the same
    /// node is done once. Without one the client draws a reference by chance for each call.
    ///
    /// # Errors
    /// If the reference is not valid.
    pub fn reference(self, reference: &str) -> Result<Self, InvalidInput> {
        Ok(Self { reference: Some(Reference::new(reference)?), ..self })
    }

    /// How long the node may ask others for rights: half a second unless said, 30 s at the most, zero to ask nobody.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

/// The products that were asked for by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Those that the node knows, in the order in which they were asked for.
    pub products: Vec<ProductInfo>,
    /// Those of which no write has reached it.
    pub unknown: Vec<Sku>,
}
