//! A copy of a node's directory that is opened on another machine while the node goes on: two histories under one id, until
//! one of them is told, or shown what the other wrote. Nothing can prevent what is sold twice until then; that it ends can
//! be required.

use crate::plan::Directory;
use crate::world::World;

impl World {
    /// Opens a copy of that node's directory at this one, as a machine of its own or under the same certificate.
    pub(crate) async fn twin(&mut self, number: u16, of: u16, has_its_certificate: bool) -> Result<(), String> {
        let Some(node) = self.node(of).filter(|node| node.leaving.is_none()) else { return Ok(()) };
        let Some(status) = node.store.as_ref().map(stockmesh::Store::status) else { return Ok(()) };
        let (images, certificate) = (node.disks.copy(), node.certificate);
        (node.was_set_back, node.was_cloned) = (true, true);
        self.books.suspect(status.replica);
        let Some(twin) = self.node(number) else { return Ok(()) };
        twin.images = images;
        twin.shared_ids = status.former_replicas.into_iter().chain([status.replica]).collect();
        (twin.was_set_back, twin.was_cloned) = (true, true);
        if has_its_certificate {
            twin.certificate = certificate;
        }
        self.open(number, Directory::Own).await
    }
}
