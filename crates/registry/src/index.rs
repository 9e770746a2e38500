//! What the registry holds, in memory: repositories with their blobs, manifests and tags, and how many links each
//! content has. Loaded at open, changed only after the disk was; answers HEAD and lists without a system call.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::digest::Digest;
use crate::name::{Reference, RepositoryName, Tag};

#[derive(Default)]
pub(crate) struct Index {
    repositories: BTreeMap<RepositoryName, Repository>,
    contents: HashMap<Digest, Content>,
}

#[derive(Default)]
pub(crate) struct Repository {
    blobs: HashSet<Digest>,
    pub manifests: BTreeMap<Digest, Manifest>,
    pub tags: BTreeMap<Tag, Digest>,
}

#[derive(Clone)]
pub(crate) struct Manifest {
    pub media_type: Arc<str>,
    pub subject: Option<Digest>,
    /// Seconds since the epoch.
    pub pushed_at: u64,
}

struct Content {
    size: u64,
    /// Repositories that hold it, as blob or as manifest.
    links: u32,
}

/// A manifest as HEAD and GET need it.
pub(crate) struct Resolved {
    pub digest: Digest,
    pub media_type: Arc<str>,
    pub size: u64,
}

impl Repository {
    pub(crate) fn tags_after<'a>(&'a self, last: &'a str) -> impl Iterator<Item = &'a Tag> {
        self.tags.range::<str, _>((Bound::Excluded(last), Bound::Unbounded)).map(|(tag, _)| tag)
    }
}

impl Index {
    pub(crate) fn repository(&self, name: &RepositoryName) -> Option<&Repository> {
        self.repositories.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &RepositoryName> {
        self.repositories.keys()
    }

    pub(crate) fn names_after<'a>(&'a self, last: &'a str) -> impl Iterator<Item = &'a RepositoryName> {
        self.repositories.range::<str, _>((Bound::Excluded(last), Bound::Unbounded)).map(|(name, _)| name)
    }

    /// The size of a blob, if that repository may serve it.
    pub(crate) fn blob(&self, name: &RepositoryName, digest: &Digest) -> Option<u64> {
        self.repositories.get(name)?.blobs.contains(digest).then(|| self.content_size(digest)).flatten()
    }

    pub(crate) fn content_size(&self, digest: &Digest) -> Option<u64> {
        self.contents.get(digest).map(|content| content.size)
    }

    pub(crate) fn resolve(&self, name: &RepositoryName, reference: &Reference) -> Option<Resolved> {
        let repository = self.repositories.get(name)?;
        let digest = match reference {
            Reference::Tag(tag) => repository.tags.get(tag)?,
            Reference::Digest(digest) => digest,
        };
        let manifest = repository.manifests.get(digest)?;
        Some(Resolved { digest: digest.clone(), media_type: manifest.media_type.clone(), size: self.content_size(digest)? })
    }

    pub(crate) fn add_repository(&mut self, name: &RepositoryName) {
        if !self.repositories.contains_key(name) {
            self.repositories.insert(name.clone(), Repository::default());
        }
    }

    pub(crate) fn add_content(&mut self, digest: &Digest, size: u64) {
        self.contents.entry(digest.clone()).or_insert(Content { size, links: 0 });
    }

    /// Links a blob whose content is known. Answers whether it was known.
    pub(crate) fn add_blob(&mut self, name: &RepositoryName, digest: &Digest) -> bool {
        let Some(content) = self.contents.get_mut(digest) else { return false };
        if self.repositories.entry(name.clone()).or_default().blobs.insert(digest.clone()) {
            content.links += 1;
        }
        true
    }

    /// Links a manifest whose content is known. Answers whether it was known.
    pub(crate) fn add_manifest(&mut self, name: &RepositoryName, digest: &Digest, manifest: Manifest) -> bool {
        let Some(content) = self.contents.get_mut(digest) else { return false };
        let manifests = &mut self.repositories.entry(name.clone()).or_default().manifests;
        if manifests.insert(digest.clone(), manifest).is_none() {
            content.links += 1;
        }
        true
    }

    /// Points a tag at a manifest of the repository. Answers whether that manifest was there.
    pub(crate) fn add_tag(&mut self, name: &RepositoryName, tag: &Tag, digest: &Digest) -> bool {
        match self.repositories.get_mut(name) {
            Some(repository) if repository.manifests.contains_key(digest) => {
                repository.tags.insert(tag.clone(), digest.clone());
                true
            }
            _ => false,
        }
    }

    pub(crate) fn remove_tag(&mut self, name: &RepositoryName, tag: &Tag) {
        if let Some(repository) = self.repositories.get_mut(name) {
            repository.tags.remove(tag);
        }
    }

    /// Unlinks a blob. Answers whether its content has no link left and was dropped.
    pub(crate) fn remove_blob(&mut self, name: &RepositoryName, digest: &Digest) -> bool {
        let removed = self.repositories.get_mut(name).is_some_and(|r| r.blobs.remove(digest));
        removed && self.unlink(digest)
    }

    /// Unlinks a manifest, whose tags are gone already. Answers whether its content has no link left and was dropped.
    pub(crate) fn remove_manifest(&mut self, name: &RepositoryName, digest: &Digest) -> bool {
        let removed = self.repositories.get_mut(name).is_some_and(|r| r.manifests.remove(digest).is_some());
        removed && self.unlink(digest)
    }

    fn unlink(&mut self, digest: &Digest) -> bool {
        let Some(content) = self.contents.get_mut(digest) else { return false };
        content.links -= 1;
        let last = content.links == 0;
        if last {
            self.contents.remove(digest);
        }
        last
    }

    /// Forgets contents without a link and hands them over for removal from the disk.
    pub(crate) fn take_unlinked(&mut self) -> Vec<Digest> {
        self.contents.extract_if(|_, content| content.links == 0).map(|(digest, _)| digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_lives_as_long_as_one_link() {
        let (a, b): (RepositoryName, RepositoryName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let digest = Digest::sha256(b"x");
        let mut index = Index::default();
        assert!(!index.add_blob(&a, &digest), "no link without content");
        index.add_content(&digest, 1);
        assert!(index.add_blob(&a, &digest) && index.add_blob(&a, &digest) && index.add_blob(&b, &digest));
        assert_eq!(index.blob(&b, &digest), Some(1));
        assert!(!index.remove_blob(&a, &digest));
        assert!(!index.remove_blob(&a, &digest), "twice is once");
        assert_eq!((index.blob(&a, &digest), index.blob(&b, &digest)), (None, Some(1)));
        assert!(index.remove_blob(&b, &digest));
        assert_eq!(index.content_size(&digest), None);
    }

    #[test]
    fn a_tag_needs_its_manifest() {
        let a: RepositoryName = "a".parse().unwrap();
        let tag: Tag = "latest".parse().unwrap();
        let digest = Digest::sha256(b"x");
        let mut index = Index::default();
        assert!(!index.add_tag(&a, &tag, &digest));
        index.add_content(&digest, 1);
        let manifest = Manifest { media_type: "m".into(), subject: None, pushed_at: 0 };
        assert!(index.add_manifest(&a, &digest, manifest) && index.add_tag(&a, &tag, &digest));
        assert!(index.resolve(&a, &Reference::Tag(tag.clone())).is_some());
        index.remove_tag(&a, &tag);
        assert!(index.resolve(&a, &Reference::Tag(tag)).is_none());
        assert!(index.resolve(&a, &Reference::Digest(digest)).is_some());
    }
}
