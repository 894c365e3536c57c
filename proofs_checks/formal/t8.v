(** T8. Residual to error: with r = ||y_s - F(y)||, the error is at most r / m (T2) and at most r / (1 - kappa) (T3). *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

(** What strong monotonicity says about norms. *)
Lemma monotone_norm {V : NormedModule R_AbsRing} {ip : InnerProduct V} (m : R) (d e : V) :
  0 < m -> m * norm d ^ 2 <= ⟨e, d⟩ -> norm d <= norm e / m.
Proof.
  intros Hm H; apply Rle_div_r; [lra|].
  assert (H1 := inner_le_norm e d); assert (H2 := norm_ge_0 d); assert (H3 := norm_ge_0 e).
  destruct H2 as [H2|H2]; [|rewrite <- H2; lra].
  apply Rmult_le_reg_r with (norm d); [exact H2|lra].
Qed.

Theorem t8_monotone (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F : V -> V) (m : R) (y_s y_star : V)
  (Hm : 0 < m)
  (HF : forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩)
  (Hsolution : F y_star = y_s) :
  forall y, norm (y [-] y_star) <= norm (y_s [-] F y) / m.
Proof.
  intros y; rewrite norm_minus_sym, <- Hsolution.
  apply monotone_norm; [exact Hm|apply HF].
Qed.

Theorem t8_contraction (V : NormedModule R_AbsRing) (D : V -> V) (rho kappa : R) (y_s y_star : V)
  (Hkappa : kappa < 1)
  (HG : forall u v, norm ((1 - rho) [*] (u [-] D u) [-] (1 - rho) [*] (v [-] D v)) <= kappa * norm (u [-] v))
  (Hsolution : rho [*] y_star [+] (1 - rho) [*] D y_star = y_s) :
  forall y, norm (y [-] y_star) <= norm (y_s [-] (rho [*] y [+] (1 - rho) [*] D y)) / (1 - kappa).
Proof.
  intros y; apply Rle_div_r; [lra|].
  specialize (HG y y_star); rewrite <- Hsolution.
  assert (H := norm_triangle
    (rho [*] y [+] (1 - rho) [*] D y [-] (rho [*] y_star [+] (1 - rho) [*] D y_star))
    ((1 - rho) [*] (y [-] D y) [-] (1 - rho) [*] (y_star [-] D y_star))).
  rewrite (norm_minus_sym (rho [*] y_star [+] (1 - rho) [*] D y_star)).
  match type of H with norm ?u <= _ => replace u with (y [-] y_star) in H by vector end.
  lra.
Qed.
