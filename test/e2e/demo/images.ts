/** What a cluster pulls for the story. */
export interface DemoImages {
  prefix: string;
  tag: string;
}

const BUILT_OF = {
  'lorikeet-operator': '-f operator/Dockerfile .',
  'lorikeet-server': '-f server/Dockerfile .',
  'lorikeet-parrot': '-f test/e2e/demo/parrot.Dockerfile test/fixtures/parrot',
};
type ImageName = keyof typeof BUILT_OF;

export function repositoryOf({ prefix }: DemoImages, name: ImageName): string {
  return `${prefix.replace(/\/$/, '')}/${name}`;
}

export function referenceOf(images: DemoImages, name: ImageName): string {
  return `${repositoryOf(images, name)}:${images.tag}`;
}

/** For who named no images. */
export function howToMakeImages(context: string, tag: string): string {
  const images = { prefix: '$PREFIX', tag };
  const lines = Object.entries(BUILT_OF).map(([name, source]) => {
    const reference = referenceOf(images, name as ImageName);
    return `  docker build -t ${reference} ${source} && docker push ${reference}`;
  });
  return [
    'The cluster pulls three images, which have to be where it can reach them. To build and push them, and to tell the story:',
    '  PREFIX=registry.example/team',
    ...lines,
    `  npm run demo -- --context ${context} --images $PREFIX${tag === 'demo' ? '' : ` --tag ${tag}`}`,
    'The last image is the base model. Pods mount it, which Kubernetes does from 1.35 on, with containerd 2.1 or CRI-O 1.31.',
  ].join('\n');
}
