import { parentPort, workerData } from 'node:worker_threads';
import { type EncodeJob, runEncodeJob } from './encoder-job.ts';
import { Tokenizer } from './tokenizer.ts';

const tokenizer = await Tokenizer.load(workerData as string);

parentPort?.on('message', (job: EncodeJob) => parentPort?.postMessage(runEncodeJob(tokenizer, job)));
parentPort?.postMessage(null);
