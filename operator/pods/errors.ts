/** The Secret that the pool names for the admin token, or its key, does not exist or is hidden by RBAC. */
export class TokenNotFound extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'TokenNotFound';
  }
}
