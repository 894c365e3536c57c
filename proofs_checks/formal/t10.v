(** T10. The first step: with sigma_s = 0, rho = 0 and F = D; a target outside a bounded denoiser's range has no preimage.
    Any rho > 0 gives back a modulus rho, so condition 1 / rho. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space t2 t9.
Open Scope R_scope.

Theorem t10_no_solution (V : NormedModule R_AbsRing) (D : V -> V) (M : R) (y_s : V)
  (Hbounded : forall y, norm (D y) <= M)
  (Houtside : M < norm y_s) :
  forall y, 0 [*] y [+] (1 - 0) [*] D y <> y_s.
Proof.
  intros y E; replace (0 [*] y [+] (1 - 0) [*] D y) with (D y) in E by vector.
  specialize (Hbounded y); rewrite E in Hbounded; lra.
Qed.

Theorem t10_repaired (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (rho : R)
  (Hrho : 0 < rho <= 1)
  (HD : forall u v, 0 <= ⟨D u [-] D v, u [-] v⟩) :
  let F := fun y => rho [*] y [+] (1 - rho) [*] D y in
  forall u v, norm (u [-] v) <= norm (F u [-] F v) / rho.
Proof. intros F; apply (t9_step V ip F); [lra|now apply t2_exact]. Qed.
